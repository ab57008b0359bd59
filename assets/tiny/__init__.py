"""The embedded example: a tiny world, a tiny model, and how both are made. Nothing of the packages imports this."""
