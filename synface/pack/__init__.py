"""Identities far apart on the hypersphere of face-recognition embeddings (HyperFace, arXiv 2411.08470)."""
