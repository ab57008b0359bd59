"""Means, standard errors and confidence intervals."""
