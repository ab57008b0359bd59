"""Which query answers for which segment: the assignment with the least cost, as in DETR.

Source: Carion et al. 2020 (arXiv 2005.12872), section 3.1, bipartite matching; Cheng et al. 2022 (arXiv 2112.01527),
section 3.2 and 3.3, the costs: class, mask and dice, at points.

Shapes: Q object queries, K classes, one more for the background, N segments of an image, P points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...precision import at_least_float32

Pairs = tuple[Tensor, Tensor]
"""Queries and the segments that they answer for, int64 each, as many as the smaller of Q and N."""
_COST_OF_NO_NUMBER = 1e6


def matching_costs(
    logits: Tensor, masks: Tensor, labels: Tensor, truth: Tensor, weights: tuple[float, float, float]
) -> Tensor:
    """What it costs to let each query answer for each segment.

    Args:
        logits: of the classes (..., Q, K + 1).
        masks: logits at the points (..., Q, P).
        labels: classes of the segments, int64 (N,).
        truth: 1 where a point lies in a segment, 0 elsewhere, float (N, P).
        weights: of class, mask and dice.

    Returns:
        float32 or float64 (..., Q, N): minus the class's probability, mean cross-entropy and dice, weighted and summed.
    """
    of_class, of_mask, of_dice = weights
    logits, masks = at_least_float32(logits), at_least_float32(masks)
    truth = truth.to(masks.dtype)
    named = -logits.softmax(dim=-1)[..., labels]
    # -log p where a point is inside, -log (1 - p) where it is not
    crossed = (F.softplus(-masks) @ truth.T + F.softplus(masks) @ (1 - truth).T) / masks.shape[-1]
    chances = masks.sigmoid()
    sizes = chances.sum(dim=-1)[..., None] + truth.sum(dim=-1)
    dice = 1 - (2 * chances @ truth.T + 1) / (sizes + 1)
    return of_class * named + of_mask * crossed + of_dice * dice


def match_queries(cost: Tensor) -> Pairs:
    """The assignment with the least total cost.

    Args:
        cost: (Q, N).

    Returns:
        queries in rising order, and their segments, on the CPU.
    """
    # a cost that is no number must not end the run here: the loss will be none either, and the loop names the images
    finite = cost.nan_to_num(_COST_OF_NO_NUMBER, _COST_OF_NO_NUMBER, -_COST_OF_NO_NUMBER)
    queries, segments = linear_sum_assignment(finite.cpu().numpy())
    return torch.as_tensor(queries, dtype=torch.int64), torch.as_tensor(segments, dtype=torch.int64)
