"""A tensor as its file describes it, and whether its numbers can be used. Importing this loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.common.words import quoted

from .files import FileError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SAFETENSORS = ".safetensors"
"""Suffix of such files; torch archives have any other."""
FLOATS = ("float16", "bfloat16", "float32", "float64")
"""Types that weights may have in a file."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor as its file describes it.

    Attributes:
        shape: sides.
        dtype: torch's name of its type, or the file's where it is none of weights.
    """

    shape: tuple[int, ...]
    dtype: str


def out_of_range(tensor: Tensor, dtype: torch.dtype) -> str | None:
    """Why weights cannot be used: they hold NaN, infinity, or numbers beyond a type's range; None where they can.

    Args:
        tensor: floating-point, on the CPU.
        dtype: the type that they will be used in.
    """
    import torch

    if not tensor.numel():
        return "holds no number"
    low, high = (float(value) for value in torch.aminmax(tensor.detach()))
    if math.isnan(low) or math.isnan(high):
        return "holds NaN"
    if math.isinf(low) or math.isinf(high):
        return "holds infinity"
    limit = torch.finfo(dtype).max
    largest = max(abs(low), abs(high))
    return f"holds {largest:g}, more than {str(dtype).removeprefix('torch.')} can" if largest > limit else None


def check_range(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Check that numbers are numbers, each within the type that it is stored in.

    Raises:
        FileError: a tensor holds NaN or infinity; it is named.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and (why := out_of_range(tensor, tensor.dtype)):
            raise FileError(f"{file}: {quoted(name)} {why}")
