"""Formats that an images table is exported to (and imported from)."""
