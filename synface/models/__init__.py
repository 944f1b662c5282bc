"""Torch modules, their weights, and what one device does with them; no Ray, no training."""
