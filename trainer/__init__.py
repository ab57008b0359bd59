"""Training: the loop, its data, its checkpoints, and the stages of the paper; see ``trainer/run.py``."""
