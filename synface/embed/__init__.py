"""Embedding: images to an identities table."""
