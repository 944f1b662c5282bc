"""Dataset and benchmark file formats of other tools."""
