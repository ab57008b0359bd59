"""Training data: sources, their order, panoptic maps and microbatches."""
