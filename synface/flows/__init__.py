"""Compositions of stages."""
