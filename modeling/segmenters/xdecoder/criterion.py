"""What an X-Decoder is taught: the class and mask of the segment that each query is matched with, and background else.

Every prediction counts, that before the first layer and those after each. The image query is neither matched nor
taught. Masks are compared at points. Sums are divided by numbers of the whole batch, wherever it is computed, and
points are drawn from numbers that belong to the image: how a batch is cut up changes rounding only. Rounding can
show more than itself, though: of two candidates that are equally uncertain to the last bit, another one may be taken,
which moves a loss of 50 by 1e-4, and the gradient by as much of itself. In float64 nothing of that is seen.

Source: Cheng et al. 2022 (arXiv 2112.01527), section 3.2 and 3.3 (losses, their weights, points; no-object weight of
section 4.1); Zou et al. 2022 (arXiv 2212.11270), section 3.3 (the same losses on logits that come from class names);
Lin et al. 2017 (arXiv 1708.02002), section 3 (focal loss).

Shapes: B images, Q object queries, K classes, N segments of an image, L + 1 predictions, M matched pairs of all
predictions and images, P points; h and w the sides of predicted masks, H and W those of the padded images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...precision import at_least_float32
from .decoder import QueryPrediction
from .matching import match_queries, matching_costs
from .model import XDecoderOutput
from .points import at_points, draw_points, labels_at_points, least_certain
from .training_options import XDecoderTrainingConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What is truly in an image.

    Attributes:
        labels: classes of the segments, int64 (N,).
        map: int32 (H, W), padded: 1..N where a segment is, 0 elsewhere.
        seed: of the points.
    """

    labels: Tensor
    map: Tensor
    seed: int

    def to(self, device: torch.device) -> Target:
        """The same on a device."""
        return Target(labels=self.labels.to(device), map=self.map.to(device), seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of all predictions, not weighted, scalars.

    Attributes:
        named: of the classes.
        mask: cross-entropy of the masks.
        dice: of the masks.
    """

    named: Tensor
    mask: Tensor
    dice: Tensor

    def total(self, config: XDecoderTrainingConfig) -> Tensor:
        """Their weighted sum."""
        return config.CLASS_WEIGHT * self.named + config.MASK_WEIGHT * self.mask + config.DICE_WEIGHT * self.dice


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """Pairs of all predictions and images: each one's prediction, image, query and segment, int64 (M,)."""

    prediction: Tensor
    image: Tensor
    query: Tensor
    segment: Tensor


class Criterion:
    """Losses of a batch.

    Args:
        config: see there.
    """

    def __init__(self, config: XDecoderTrainingConfig) -> None:
        self.config = config

    def __call__(self, output: XDecoderOutput, targets: Sequence[Target], *, num_images: int, num_masks: int) -> Losses:
        """Match, and compare.

        Args:
            output: of the network, with the auxiliary predictions.
            targets: one per image.
            num_images: in the whole batch, of which this may be a part.
            num_masks: segments in the whole batch, see `num_matched`.
        """
        final: Sequence[QueryPrediction | XDecoderOutput] = (*output.auxiliary, output)
        logits = torch.stack([one.logits[:, :-1] for one in final])  # (L + 1, B, Q, K + 1)
        masks = torch.stack([one.masks[:, :-1] for one in final])  # (L + 1, B, Q, h, w)
        generators = [torch.Generator().manual_seed(target.seed) for target in targets]
        matched = self._match(logits, masks, targets, generators)
        every = num_masks + self.config.NO_OBJECT * (num_images * logits.shape[2] - num_masks)
        mask, dice = self._mask_losses(masks, matched, targets, generators, max(1, num_masks))
        return Losses(named=self._class_loss(logits, matched, targets) / every, mask=mask, dice=dice)

    @torch.no_grad()
    def _match(
        self, logits: Tensor, masks: Tensor, targets: Sequence[Target], generators: Sequence[torch.Generator]
    ) -> _Matched:
        config = self.config
        weights = (config.CLASS_WEIGHT, config.MASK_WEIGHT, config.DICE_WEIGHT)
        points = torch.stack([draw_points(generator, config.POINTS) for generator in generators]).to(masks.device)
        by_image = masks.transpose(0, 1).flatten(1, 2)  # (B, (L + 1) * Q, h, w)
        sampled = at_points(by_image, points).reshape(len(targets), len(masks), -1, points.shape[1])  # (B, L + 1, Q, P)
        found: list[Tensor] = []
        for number, target in enumerate(targets):
            inside = labels_at_points(target.map, points[number])  # (P,)
            truth = inside == torch.arange(1, len(target.labels) + 1, device=inside.device)[:, None]  # (N, P)
            cost = matching_costs(logits[:, number], sampled[number], target.labels, truth, weights).cpu()
            for prediction, one in enumerate(cost):
                queries, segments = match_queries(one)
                here = torch.full_like(queries, prediction), torch.full_like(queries, number)
                found.append(torch.stack([*here, queries, segments]))
        prediction_, image, query, segment = torch.cat(found, dim=1).to(masks.device)
        return _Matched(prediction=prediction_, image=image, query=query, segment=segment)

    def _class_loss(self, logits: Tensor, matched: _Matched, targets: Sequence[Target]) -> Tensor:
        """Cross-entropy of every query of every prediction, weighted and summed; see `classification`."""
        background = logits.shape[-1] - 1
        labels = torch.full(logits.shape[:-1], background, device=logits.device)
        offsets = _offsets([len(target.labels) for target in targets]).to(logits.device)
        every = torch.cat([target.labels for target in targets])
        place = (matched.prediction, matched.image, matched.query)
        labels[place] = every[offsets[matched.image] + matched.segment]
        config = self.config
        return classification(logits, labels, no_object=config.NO_OBJECT, gamma=config.FOCAL_GAMMA)

    def _mask_losses(
        self,
        masks: Tensor,
        matched: _Matched,
        targets: Sequence[Target],
        generators: Sequence[torch.Generator],
        num_masks: int,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and dice of the matched masks at points where they are unsure."""
        if not len(matched.query):
            none = 0.0 * masks.sum()
            return none, none
        config = self.config
        chosen = masks[matched.prediction, matched.image, matched.query]  # (M, h, w), image by image
        num_even = config.POINTS - config.num_uncertain
        pairs = torch.bincount(matched.image, minlength=len(targets)).tolist()
        drawn = [
            draw_points(g, num, config.num_candidates + num_even) for g, num in zip(generators, pairs, strict=True)
        ]
        candidates, even = torch.split(torch.cat(drawn).to(masks.device), [config.num_candidates, num_even], dim=1)
        points = torch.cat([least_certain(chosen, candidates, config.num_uncertain), even], dim=1)  # (M, P, 2)
        inside = [
            labels_at_points(target.map, part) for target, part in zip(targets, torch.split(points, pairs), strict=True)
        ]
        predicted = at_points(chosen[:, None], points)[:, 0]
        truth = (torch.cat(inside) == matched.segment[:, None] + 1).to(predicted.dtype)  # (M, P)
        return cross_entropy(predicted, truth) / num_masks, dice_loss(predicted, truth) / num_masks


def num_matched(num_segments: Sequence[int], num_queries: int) -> int:
    """How many segments of some images find a query.

    Args:
        num_segments: of each image.
        num_queries: object queries (Q).
    """
    return sum(min(num, num_queries) for num in num_segments)


def classification(logits: Tensor, labels: Tensor, *, no_object: float, gamma: float) -> Tensor:
    """Sum of the weighted cross-entropies, each times (1 - p) ** gamma, p the right class's probability.

    Args:
        logits: (..., K + 1), the background last.
        labels: int64 (...); K for the background.
        no_object: weight where the label is the background; 1 elsewhere.
        gamma: 0 for plain cross-entropy.
    """
    right = at_least_float32(logits).log_softmax(dim=-1).gather(-1, labels[..., None])[..., 0]
    weight = torch.where(labels == logits.shape[-1] - 1, no_object, 1.0)
    if gamma:
        weight = weight * (1 - right.exp()) ** gamma
    return -(weight * right).sum()


def cross_entropy(masks: Tensor, truth: Tensor) -> Tensor:
    """Sum over masks of the mean over points of the binary cross-entropy; logits and truth (M, P)."""
    return F.binary_cross_entropy_with_logits(at_least_float32(masks), truth, reduction="none").mean(dim=1).sum()


def dice_loss(masks: Tensor, truth: Tensor) -> Tensor:
    """Sum over masks of 1 - (2 |both| + 1) / (|predicted| + |true| + 1); logits and truth (M, P)."""
    chances = at_least_float32(masks).sigmoid()
    both, sizes = (chances * truth).sum(dim=1), chances.sum(dim=1) + truth.sum(dim=1)
    return (1 - (2 * both + 1) / (sizes + 1)).sum()


def _offsets(counts: Sequence[int]) -> Tensor:
    """Where each of some lists begins once they are put together."""
    return torch.tensor([0, *counts[:-1]]).cumsum(dim=0)
