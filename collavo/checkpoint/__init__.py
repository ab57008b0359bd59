"""Checkpoints: names, layouts, sizes, settings; examined before any weight is read."""
