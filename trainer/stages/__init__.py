"""Stages of training. ``TRAIN.STAGE`` names one of `registry.STAGES`.

Its function gives a `trainer.stages.base.StageJob`: model, data, and what its checkpoints hold. Those that tune CoLLaVO
say which adapters there are (``adapters``) and what each learns from (``sources``); `trainer.stages.tuning` does the
rest.
"""
