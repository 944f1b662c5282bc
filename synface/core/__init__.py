"""Sphere geometry, keyed randomness, crops and verification scores. No I/O, no config, no logging."""
