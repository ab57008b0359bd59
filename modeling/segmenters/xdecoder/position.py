"""Sine encoding of the positions on a feature map.

Source: Carion et al. 2020 (arXiv 2005.12872), section A.4, with coordinates normed to one period.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BASE = 10000.0  # ratio of the longest wavelength to the shortest
_EPS = 1e-6


def sine_position(height: int, width: int, num_features: int, device: torch.device | str = "cpu") -> Tensor:
    """Encode every position of a map.

    Args:
        height: of the map, in positions (h).
        width: of the map, in positions (w).
        num_features: for each coordinate (n); even.
        device: of the result.

    Returns:
        float32 (2n, h, w): n features of the row, then n of the column; sine and cosine take turns.

    Raises:
        ValueError: an odd number of features.
    """
    if num_features % 2:
        raise ValueError(f"sines and cosines come in pairs: {num_features} features are odd")
    rows = _encode(height, num_features, device)[:, :, None].expand(-1, -1, width)
    columns = _encode(width, num_features, device)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])


def _encode(count: int, num_features: int, device: torch.device | str) -> Tensor:
    """Features (n, count) of the coordinates 1 .. count."""
    coordinates = torch.arange(1, count + 1, dtype=torch.float32, device=device) / (count + _EPS) * (2 * math.pi)
    pairs = torch.arange(num_features // 2, dtype=torch.float32, device=device)
    angles = coordinates / _BASE ** (2 * pairs / num_features)[:, None]  # (n/2, count)
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
