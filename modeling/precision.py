"""In which precision sums are made: float32 at least, whatever half-precision type the weights have."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor in float32, or in float64 if it is that already; any shape.

    Unlike `Tensor.float`, this does not round float64: a model in float64 computes in it throughout, which is how two
    ways of adding up the same sums are told from two different sums.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
