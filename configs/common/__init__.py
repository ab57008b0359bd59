"""Small things that every package may use: words for messages, paths, JSON. Imports nothing of ours, and no torch."""
