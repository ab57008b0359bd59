"""The loop that joins a model to a benchmark: divide, answer, keep, score, report."""
