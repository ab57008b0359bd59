"""Floating-point operations of an update, counted from the sizes of the model.

A multiplication and an addition for each weight and row forwards; backwards as much again for the gradient of the input
where anything before the layer is trained, and once more for the gradient of the weight where that is trained. So a
frozen vision tower costs its forward pass alone, and a trained one three times that. What gradient checkpointing does
twice counts once, and of attention in the decoder what the mask leaves, so that a share of the device's peak is that of
useful work (model FLOP/s utilisation, arXiv 2204.02311). Left out: norms and activations, padding, and the MLP of the
crayon prompt, which only the few dozen distinct vectors of an image pass (under 0.1 % at full size). All else is what
torch's counter finds, see ``tests/unit/trainer/test_cost.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from collavo.model import CoLLaVOForConditionalGeneration
from modeling.plora import PLoRALinear

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


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Multiply-adds of an update, forwards and backwards, by what they are for.

    Attributes:
        token: of a token in the decoder.
        image_token: further ones of an image token there: its low-rank pairs.
        image: of an image in the vision tower and the projector.
        label: of a labelled token in the output layer.
        pair: of two tokens, one of which sees the other.
        image_tokens: of an image.
    """

    token: int
    image_token: int
    image: int
    label: int
    pair: int
    image_tokens: int

    @classmethod
    def of_model(cls, model: CoLLaVOForConditionalGeneration, moving: Iterable[nn.Parameter]) -> TrainingCost:
        """Count the weights of a model.

        Args:
            model: with its LoRA adapters.
            moving: parameters that the update trains.
        """
        trained = {id(parameter) for parameter in moving}
        image, moves = _before_decoder(model, trained)
        token = image_token = pair = 0
        queries = any(id(parameter) in trained for parameter in model.crayon.parameters())
        acts = model.config.crayon_queries != "none"
        layers: Any = model.language_model.layers
        for layer in layers:
            for linears in (
                (layer.attention.wqkv,),
                (layer.attention.wo,),
                (layer.mlp.w1, layer.mlp.w3),
                (layer.mlp.w2,),
            ):
                after = moves
                for linear in linears:
                    more, low_rank, changed = _plora(linear, trained, moves, queries, acts=acts)
                    token, image_token, after = token + more, image_token + low_rank, after or changed
                moves = after
                if linears[0] is layer.attention.wqkv:
                    pair += 2 * model.config.text.hidden_size * (3 if moves else 1)
        return cls(
            token=token,
            image_token=image_token,
            image=image,
            label=_passes(model.output, moves, trained),
            pair=pair,
            image_tokens=model.config.num_image_tokens,
        )

    def of(self, update: Update) -> float:
        """Floating-point operations of an update, over all processes."""
        tally = update.tally
        image_tokens = tally.images * self.image_tokens
        tokens = tally.tokens - tally.images + image_tokens
        pairs = self.pair * tally.squares / 2  # half of them, since nobody looks ahead
        products = tokens * self.token + image_tokens * self.image_token + tally.labels * self.label
        return 2 * float(products + pairs + tally.images * self.image)


def _before_decoder(model: CoLLaVOForConditionalGeneration, trained: set[int]) -> tuple[int, bool]:
    """Multiply-adds of an image in the vision tower and the projector, and whether its features get a gradient."""
    tower, tokens = model.vision_tower, model.config.num_image_tokens
    moves = any(id(parameter) in trained for parameter in tower.parameters())
    width = tower.config.hidden_size
    found = tokens * _passes(tower.patch_embedding, False, trained)
    for layer in tower.layers:
        linears = (module for module in layer.modules() if isinstance(module, nn.Linear))
        found += (1 + tokens) * sum(_passes(linear, moves, trained) for linear in linears)
        found += 2 * (1 + tokens) ** 2 * width * (3 if moves else 1)
    for linear in (module for module in model.projector if isinstance(module, nn.Linear)):
        found += tokens * _passes(linear, moves, trained)
        moves = moves or id(linear.weight) in trained
    return found, moves


def _plora(linear: PLoRALinear, trained: set[int], moves: bool, queries: bool, *, acts: bool) -> tuple[int, int, bool]:
    """Multiply-adds of a linear of the decoder.

    Args:
        linear: perhaps with LoRA adapters on its base.
        trained: identities of the parameters that are trained.
        moves: whether its input gets a gradient.
        queries: whether the crayon vectors do.
        acts: whether there is a crayon prompt.
    Returns: of a token; of an image token besides; and whether its output gets a gradient.
    """
    base: Any = linear.base
    token, changed = _passes(getattr(base, "base_layer", base), moves, trained), moves
    for name, first in getattr(base, "lora_A", {}).items():
        token += _passes(first, moves, trained)
        token += _passes(base.lora_B[name], moves or id(first.weight) in trained, trained)
        changed = changed or id(first.weight) in trained
    image_token = _passes(linear.image_a, moves, trained) + _passes(linear.image_b, moves, trained)
    if acts and linear.crayon_a is not None and linear.crayon_b is not None:
        pair_moves = id(linear.crayon_a.weight) in trained
        if linear.dropout.p > 0:  # without, an image's distinct vectors pass, of which there are few
            image_token += _passes(linear.crayon_a, queries, trained)
            image_token += _passes(linear.crayon_b, queries or pair_moves, trained)
        changed = changed or queries or pair_moves
    return token, image_token, changed


def _passes(module: nn.Module, moves: bool, trained: set[int]) -> int:
    """Multiply-adds of a row in a linear or a convolution: forwards, for its input and for its weight.

    Args:
        module: whose weight is counted.
        moves: whether its input gets a gradient.
        trained: identities of the parameters that are trained.
    """
    weight: Any = module.weight
    return num_weights([weight]) * (1 + int(moves) + int(id(weight) in trained))


def peak_flops(device: torch.device) -> float | None:
    """Dense FLOP/s of a device in half precision; None where they are not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS if part in name), None)
