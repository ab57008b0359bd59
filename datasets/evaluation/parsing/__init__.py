"""From texts to what scorers compare: letters, numbers, targets. Pure functions."""
