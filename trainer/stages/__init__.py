"""Stages of training. A stage is a module here; ``TRAIN.STAGE`` names it.

Its ``load`` gives a `trainer.stages.base.Job`: model, data, and what its checkpoints hold. Those that tune CoLLaVO say
which adapters there are (``adapters``) and what each learns from (``sources``); `trainer.stages.tuning` does the rest.
"""
