"""Points at which masks are compared in training, instead of at every pixel: drawn evenly, or where a mask is unsure.

Source: Kirillov et al. 2019 (arXiv 1912.08193), section 3.1, importance sampling in training; Cheng et al. 2022
(arXiv 2112.01527), section 3.3, its use for matching and mask losses.

Shapes: N maps, C channels, P points; h and w the sides of predicted maps, H and W those of the true ones. A point is
(x, y) in 0..1 of the width and height.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps between their pixels, bilinear; beyond the middle of an outermost pixel, that pixel's value.

    Args:
        maps: float (N, C, h, w).
        points: float (N, P, 2).

    Returns:
        (N, C, P).
    """
    grid = 2 * points[:, :, None] - 1  # (N, P, 1, 2), -1..1 from edge to edge
    sampled = F.grid_sample(maps, grid.to(maps.dtype), padding_mode="border", align_corners=False)
    return sampled[..., 0]


def labels_at_points(labels: Tensor, points: Tensor) -> Tensor:
    """The labels of the pixels that points lie in.

    Args:
        labels: integers (H, W).
        points: float (..., 2).

    Returns:
        of the labels' type (...).
    """
    height, width = labels.shape
    x = (points[..., 0] * width).long().clamp(0, width - 1)
    y = (points[..., 1] * height).long().clamp(0, height - 1)
    return labels[y, x]


def least_certain(masks: Tensor, candidates: Tensor, num: int) -> Tensor:
    """Of candidate points those where a mask is nearest to a half.

    Args:
        masks: logits (N, h, w).
        candidates: float (N, P, 2).
        num: how many are kept, at most P.

    Returns:
        (N, num, 2).
    """
    with torch.no_grad():
        distance = at_points(masks[:, None], candidates)[:, 0].abs()  # (N, P)
        nearest = distance.topk(num, dim=1, largest=False).indices
    return candidates.gather(1, nearest[..., None].expand(-1, -1, 2))


def draw_points(generator: torch.Generator, *shape: int) -> Tensor:
    """Points drawn evenly, float32 (*shape, 2), on the CPU: the same wherever the masks are."""
    return torch.rand(*shape, 2, generator=generator)
