"""What a tiny language model needs so that it learns to read a box; without, it reads none of the numbers.

To say what a box holds, a token must gather the box's four numbers, look at the image token in its middle, and pass on
what that shows: three things, none of which pays without the others. The first is given (`gather_numbers`), the others
have losses of their own (`box_loss`). All of it is part of the making of the tiny language model alone.

Shape legend: B rows, T tokens, P image tokens, N boxes, D width, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from collavo.config import CoLLaVOConfig
from collavo.model import CoLLaVOForConditionalGeneration
from modeling.internlm2 import DecoderLayer, rotary_tables, rotate

from .rows import PackedRow
from .vocabulary import COORDINATES

APART = 2
"""Tokens from one number of a box to the next: the number, and a comma with a space."""

LOOKS = 1
"""The layer that looks at the middle of a box; the one before it gathers the numbers."""

_PAIRS = 2  # of dimensions, the two that rotary positions turn fastest: enough to tell four numbers by their distance
_SHARPNESS = 8.0  # logit of the numbers that a gathering head looks at
_SPREAD = 0.4  # of the image tokens that count as the middle, in image tokens


def number_ids(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Ids of the words for coordinates from 0.00 to 1.00, int64 (101,).

    Raises:
        ValueError: a coordinate is no single token, or two coordinates in a row are not `APART`.
    """
    rows = tokenizer(list(COORDINATES), add_special_tokens=False).input_ids
    pair = tokenizer(f"{COORDINATES[0]}, {COORDINATES[1]}", add_special_tokens=False).input_ids
    if any(len(ids) != 1 for ids in rows) or len(pair) != APART + 1:
        raise ValueError(f"coordinates must be one token each, and {APART} from one to the next in a box")
    return torch.tensor([ids[0] for ids in rows])


def gather_numbers(model: CoLLaVOForConditionalGeneration, numbers: Tensor, seed: int) -> None:
    """Let the last number of a box see, in the first layer, its left and right by one head, top and bottom by another.

    All words for numbers get a direction in common. Keys show it in two pairs of dimensions; there the second query
    heads of both groups look for it at the distances of a box's left and right, and of its top and bottom: sums of the
    cosines and sines by which rotary positions turn (arXiv 2104.09864) that are 1 at these and -1 at the others.

    Args:
        model: with two groups of two query heads.
        numbers: see `number_ids`.
        seed: of the direction.
    """
    text = model.config.text
    groups, half = text.num_attention_heads // text.num_key_value_heads, text.head_dim // 2
    common = F.normalize(torch.randn(text.hidden_size, generator=torch.Generator().manual_seed(seed)), dim=0)
    angles = text.rope_theta ** -(torch.arange(_PAIRS) / half) * APART * torch.arange(4)[:, None]  # (4, _PAIRS)
    tops = torch.tensor([1.0, -1.0, 1.0, -1.0])  # from the last number back: bottom, right, top, left
    cosines, sines = torch.linalg.solve(torch.cat([angles.cos(), angles.sin()], dim=-1), tops).chunk(2)
    attention: Any = model.language_model.layers[LOOKS - 1].attention
    with torch.no_grad():
        table = model.language_model.embed_tokens.weight
        table[numbers] += table[numbers].norm(dim=-1).mean() * common
        seen = text.hidden_size / 2  # squared length of what is in common, after the norm
        shown = math.sqrt(_SHARPNESS * math.sqrt(text.head_dim) / seen) * common
        packed = attention.wqkv.base.weight.view(text.num_key_value_heads, groups + 2, text.head_dim, -1)
        for group, sign in enumerate((-1.0, 1.0)):
            for pair in range(_PAIRS):
                packed[group, -2, pair], packed[group, -2, half + pair] = shown, 0
                packed[group, 1, pair] = sign * cosines[pair] * shown
                packed[group, 1, half + pair] = -sign * sines[pair] * shown


@dataclass(frozen=True)
class Boxes:
    """Where the boxes of a batch are written, and what is in their middle.

    Attributes:
        rows: int64 (N,).
        tokens: int64 (N,), place of the last number in its row.
        middles: float32 (N, 2), x and y in fractions of the image.
    """

    rows: Tensor
    tokens: Tensor
    middles: Tensor


def boxes_in(input_ids: Tensor, numbers: Tensor) -> Boxes:
    """Find all boxes: four numbers, `APART` from each other, with the same between all of them.

    Args:
        input_ids: int64 (B, T).
        numbers: see `number_ids`.
    """
    value = torch.full((max(int(input_ids.max()), int(numbers.max())) + 1,), -1.0)
    value[numbers] = torch.linspace(0, 1, len(numbers))
    spans = input_ids.unfold(1, 3 * APART + 1, 1)  # (B, T - 3 * APART, 3 * APART + 1)
    between = spans[..., :-1].reshape(*spans.shape[:2], 3, APART)[..., 1:]
    sides = value[spans[..., ::APART]]
    rows, tokens = ((sides >= 0).all(-1) & (between == between[..., :1, :]).all((-1, -2))).nonzero(as_tuple=True)
    left, top, right, bottom = sides[rows, tokens].unbind(-1)
    return Boxes(rows, tokens + 3 * APART, torch.stack([left + right, top + bottom], dim=-1) / 2)


@dataclass
class LayerRecord:
    """What a decoder layer computed in its last run.

    Attributes:
        packed: queries, keys and values before rotation, (B, T, packed width).
        hidden: what it returned, (B, T, D).
    """

    packed: Tensor = field(default_factory=lambda: torch.empty(0))
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def record_layer(layer: DecoderLayer) -> Iterator[LayerRecord]:
    """Listen to a layer."""
    heard = LayerRecord()
    hooks = [
        layer.attention.wqkv.register_forward_hook(lambda module, given, out: setattr(heard, "packed", out)),
        layer.register_forward_hook(lambda module, given, out: setattr(heard, "hidden", out)),
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def box_loss(
    heard: LayerRecord, config: CoLLaVOConfig, row: PackedRow, boxes: Boxes, labels: Tensor, names: Tensor
) -> Tensor:
    """Whether the last number of each box looks at its middle, and then resembles the word for what is there.

    Args:
        heard: of layer `LOOKS`; the second head of its first group is the one that is to look.
        config: of the model.
        row: what was run.
        boxes: in it; of none the loss is 0.
        labels: int64 (B, P), class of every image token.
        names: float (classes, D), embeddings of the words for the classes.
    Returns: sum of two mean cross-entropies.
    """
    if not len(boxes.rows):
        return heard.hidden.new_zeros(())
    weights = _near(boxes.middles, config.grid)  # (N, P)
    logits = _attention_logits(heard.packed, config, row, boxes)  # (N, T)
    image = (row.input_ids[0] == config.image_token_id).nonzero()[:, 0]
    looks = -(weights * logits.log_softmax(-1)[:, image]).sum(-1).mean()
    shown = labels[boxes.rows, weights.argmax(-1)]
    said = F.linear(F.rms_norm(heard.hidden[boxes.rows, boxes.tokens], names.shape[-1:]), names)
    return looks + F.cross_entropy(said, shown)


def _near(middles: Tensor, grid: int) -> Tensor:
    """How much each image token is the middle of a box, (N, P), in all 1: by its distance from there."""
    places = torch.arange(grid) + 0.5
    far = (places - grid * middles[:, :, None]).square() / (2 * _SPREAD**2)  # (N, 2, grid)
    return (-(far[:, 1, :, None] + far[:, 0, None, :])).flatten(1).softmax(-1)


def _attention_logits(packed: Tensor, config: CoLLaVOConfig, row: PackedRow, boxes: Boxes) -> Tensor:
    """Logits of the looking head from the last number of each box to every token, (N, T); -inf where it sees none."""
    text = config.text
    parts = packed.view(*packed.shape[:2], text.num_key_value_heads, -1, text.head_dim)[:, :, 0]  # (B, T, parts, d)
    cos, sin = (table[:, :, 0, 0] for table in rotary_tables(row.position_ids, text.head_dim, text.rope_theta))
    query, key = rotate(parts[:, :, 1], cos, sin), rotate(parts[:, :, -2], cos, sin)  # (B, T, d)
    logits: Tensor = torch.einsum("nd,ntd->nt", query[boxes.rows, boxes.tokens], key[boxes.rows]) * text.head_dim**-0.5
    return logits.masked_fill(~row.attention_mask[boxes.rows, 0, boxes.tokens], -torch.inf)
