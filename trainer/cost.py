"""Floating-point operations of an update, counted from the sizes of the model.

A multiplication and an addition per weight and token forwards; backwards as much again for the gradient of what goes
in, and once more for each weight that is trained. What gradient checkpointing computes twice counts once, so that a
share of the device's peak is that of useful work (model FLOP/s utilisation, arXiv 2204.02311).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from collavo.model import CoLLaVOForConditionalGeneration

from .loop import Update
from .parallel.trainable import num_weights

PEAKS = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("RTX A6000", 155e12),
    ("A10", 125e12),
    ("V100", 125e12),
)
"""Dense FLOP/s in bf16 (V100: fp16) by part of a GPU's name, as its maker publishes them; the first match counts."""
_IMAGE_ONLY = ("image_a", "image_b", "crayon_a", "crayon_b")


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What an update of a model costs.

    Attributes:
        token: weights that every token passes in the decoder.
        image_token: further ones that an image token passes there, and in the projector.
        patch: weights that a patch passes in the vision tower, counted as frozen.
        label: weights of the output layer, which labelled tokens alone pass.
        trained: weights that are trained.
        attention: numbers that two tokens that see each other cost: layers times width, forwards.
        image_tokens: of an image.
    """

    token: int
    image_token: int
    patch: int
    label: int
    trained: int
    attention: int
    image_tokens: int

    @classmethod
    def of_model(cls, model: CoLLaVOForConditionalGeneration, moving: Iterable[nn.Parameter]) -> TrainingCost:
        """Count the weights of a model.

        Args:
            model: with its LoRA adapters.
            moving: parameters that are trained.
        """
        decoder = [
            (n, p) for n, p in model.language_model.named_parameters() if p.dim() > 1 and "embed_tokens" not in n
        ]
        image = [p for n, p in decoder if any(f".{part}." in f".{n}." for part in _IMAGE_ONLY)]
        text = model.config.text
        return cls(
            token=num_weights(p for _, p in decoder) - num_weights(image),
            image_token=num_weights(image) + num_weights(model.projector.parameters()),
            patch=num_weights(p for p in model.vision_tower.parameters() if p.dim() > 1),
            label=num_weights(model.output.parameters()),
            trained=num_weights(moving),
            attention=2 * text.num_hidden_layers * text.hidden_size,
            image_tokens=model.config.num_image_tokens,
        )

    def of(self, update: Update) -> float:
        """Floating-point operations of an update, over all processes."""
        tally = update.tally
        image_tokens = tally.images * self.image_tokens
        tokens = tally.tokens - tally.images + image_tokens
        forwards = tokens * self.token + image_tokens * self.image_token + tally.labels * self.label
        seen = self.attention * tally.squares / 2  # half of the pairs, since nobody looks ahead
        passing = 2 * 2 * forwards + 3 * 2 * seen + 2 * image_tokens * self.patch
        return float(passing + 2 * tokens * self.trained)


def peak_flops(device: torch.device) -> float | None:
    """Dense FLOP/s of a device in half precision; None where they are not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS if part in name), None)
