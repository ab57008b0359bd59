"""The tiny vision tower, taught to say what each image token shows: class, colour, text of a sign.

CLIP's tower has seen 400 million images with captions; a tower of four layers learns as much of the tiny world as
the rest of the model needs from the labels of each patch. It is frozen afterwards, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from collavo.processing import CoLLaVOProcessor
from modeling.vit import VisionTower

from .scenes import CLASSES, COLOUR_NAMES, TEXTS, DrawnScenes

_WEIGHTS = (1.0, 1.0, 0.5, 0.2, 0.2)
"""Of class, colour, text, row and column: a tower that need not tell where it looks forgets it."""

_WARMUP = 0.05


class TokenReader(nn.Module):
    """Linear readers of a tower's features, one for each kind of label; used in this pretraining only.

    Args:
        width: of the features.
        grid: image tokens a side.
    """

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        sizes = (len(CLASSES), len(COLOUR_NAMES), len(TEXTS), grid, grid)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Logits of class, colour, text, row and column, (B, P, names) each, from features (B, P, width)."""
        normed = self.norm(features)
        return [head(normed) for head in self.heads]


def cosine(step: int, steps: int, highest: float) -> float:
    """Rate of an update, from 0: linear rise over the first 5 %, then a cosine down to 0."""
    warm = max(1, round(_WARMUP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def teach_tower(
    tower: VisionTower,
    processor: CoLLaVOProcessor,
    drawn: DrawnScenes,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    rate: float,
    say: Callable[[str], None],
) -> None:
    """Train a tower in place, on shuffled passes over the scenes.

    Args:
        tower: fresh.
        processor: normalises images.
        drawn: scenes.
        seed: of the order.
        steps: updates.
        batch_size: scenes of an update.
        rate: highest learning rate.
        say: gets a line now and then.
    """
    grid = processor.grid
    reader = TokenReader(tower.config.hidden_size, grid)
    places = torch.stack([torch.arange(grid**2) // grid, torch.arange(grid**2) % grid], dim=-1)  # (P, 2)
    parameters = [*tower.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    num = len(drawn.images)
    order = np.concatenate([rng.permutation(num) for _ in range(math.ceil(steps * batch_size / num))])
    tower.train()
    for step in range(steps):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        pixels = processor.pixel_values(drawn.images[chosen])
        labels = torch.cat([torch.from_numpy(drawn.labels[chosen]).long(), places.expand(len(chosen), -1, -1)], dim=-1)
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, steps, rate)
        losses, right = _losses(reader(tower(pixels)), labels)
        loss = torch.stack(losses) @ torch.tensor(_WEIGHTS)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            named = zip(("class of things", "colour", "text", "row", "column"), right, strict=True)
            shares = ", ".join(f"{name} {share:.2f}" for name, share in named)
            say(f"vision tower, update {step + 1} of {steps}: loss {loss.item():.3f}; tokens read rightly: {shares}")
    tower.eval()


def _losses(logits: list[Tensor], labels: Tensor) -> tuple[list[Tensor], list[float]]:
    """Cross-entropies, and shares of tokens that are read rightly (for the class, of tokens that show a thing)."""
    losses, right = [], []
    for kind, scores in enumerate(logits):
        target = labels[..., kind]
        losses.append(mean_loss(scores, target))
        counted = labels[..., 1] >= 0 if kind < 2 else target >= 0
        right.append((scores.argmax(-1) == target)[counted].float().mean().item())
    return losses, right


def mean_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens that have a label; 0 where none has.

    Args:
        logits: (B, P, names).
        target: int64 (B, P), -1 for no label.
    """
    total = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)
