"""Identities to images: a shard plan streams through generator actors into an images table on any URI."""
