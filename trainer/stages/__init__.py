"""Stages of training. A stage is a module here; ``TRAIN.STAGE`` names it.

It says which LoRA sets there are (``adapters``) and what each branch learns from (``sources``).
"""
