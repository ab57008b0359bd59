"""CoLLaVO: the crayon prompt, the model, its checkpoints and its generation engine."""
