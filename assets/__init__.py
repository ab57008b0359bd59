"""Requirements, figures, the launcher script, and the embedded example."""
