"""The tiny vision tower, taught to say what each image token shows: class, colour, text of a sign.

CLIP's tower has seen 400 million pictures with captions; a tower of four layers learns as much of the tiny world as
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

from .scenes import CLASSES, COLOUR_NAMES, TEXTS, Drawn

_TEXT_WEIGHT = 0.5
_WARMUP = 0.05


class TokenReader(nn.Module):
    """Linear readers of a tower's features, one for each kind of label; used in this pretraining only.

    Args:
        width: of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in (CLASSES, COLOUR_NAMES, TEXTS))

    def forward(self, features: Tensor) -> list[Tensor]:
        """Logits of class, colour and text, (B, P, names) each, from features (B, P, width)."""
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
    drawn: Drawn,
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
        processor: normalises pictures.
        drawn: scenes.
        seed: of the order.
        steps: updates.
        batch_size: scenes of an update.
        rate: highest learning rate.
        say: gets a line now and then.
    """
    reader = TokenReader(tower.config.hidden_size)
    parameters = [*tower.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    num = len(drawn.pictures)
    order = np.concatenate([rng.permutation(num) for _ in range(math.ceil(steps * batch_size / num))])
    tower.train()
    for step in range(steps):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        pixels = processor.pixel_values(drawn.pictures[chosen])
        labels = torch.from_numpy(drawn.labels[chosen]).long()
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, steps, rate)
        losses, right = _losses(reader(tower(pixels)), labels)
        loss = losses[0] + losses[1] + _TEXT_WEIGHT * losses[2]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            named = zip(("class of things", "colour", "text"), right, strict=True)
            shares = ", ".join(f"{name} {share:.2f}" for name, share in named)
            say(f"vision tower, update {step + 1} of {steps}: loss {loss.item():.3f}; tokens read rightly: {shares}")
    tower.eval()


def _losses(logits: list[Tensor], labels: Tensor) -> tuple[list[Tensor], list[float]]:
    """Cross-entropies, and shares of tokens that are read rightly (for the class, of tokens that show a thing)."""
    losses, right = [], []
    for kind, scores in enumerate(logits):
        target = labels[..., kind]
        losses.append(F.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=-1))
        counted = labels[..., 1] >= 0 if kind < 2 else target >= 0
        right.append((scores.argmax(-1) == target)[counted].float().mean().item())
    return losses, right
