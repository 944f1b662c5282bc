"""synface: synthetic face-recognition datasets at scale (HyperFace, CemiFace and their peers)."""

__version__ = "0.1.0"
