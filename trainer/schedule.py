"""The learning rate as a function of the update: a linear rise, then half a cosine down to the lowest."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, *, highest: float, lowest: float, warmup: float) -> float:
    """The learning rate of an update.

    Args:
        step: from 0.
        steps: updates in all.
        highest: at the end of the rise.
        lowest: at the last update.
        warmup: share of the updates over which it rises from near 0.
    """
    rise = math.ceil(warmup * steps)
    if step < rise:
        return highest * (step + 1) / rise
    along = (step - rise) / max(1, steps - 1 - rise)
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * min(1.0, along))) / 2
