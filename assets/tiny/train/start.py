"""What a tiny language model needs so that it learns to look things up in an image; a plain random start does not.

Input and output share their words; image tokens resemble the words for their class, colour, text and place (auxiliary
loss); the first query head of every group starts equal to its key and passes on what it finds (mimetic start, arXiv
2305.09828).

Shape legend: B rows, P image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from collavo.config import CoLLaVOConfig
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.template import IMAGE_TAG
from modeling.segmenters.coco import display_name

from ..world.facts import CORNERS
from .scenes import CLASSES, COLOUR_NAMES, TEXTS
from .vision import mean_loss

_COORDINATES = 0.5  # weight of coordinates next to class, colour, text and place
_SPREAD = 0.12  # of the numbers that an image token resembles, in fractions of the image


def config_of(tokenizer: PreTrainedTokenizerBase, image_size: int, patch_size: int) -> CoLLaVOConfig:
    """Sizes of the trained tiny model: 8x8 image tokens, four layers a tower, width 128."""
    image = int(tokenizer.convert_tokens_to_ids(IMAGE_TAG))
    return CoLLaVOConfig(
        text_config={
            "vocab_size": image,
            "embedding_rows": image + 1,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "plora_rank": 32,
            "plora_alpha": 32.0,
            "plora_dropout": 0.0,
            "initializer_range": 0.06,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "patch_size": patch_size,
            "image_size": image_size,
        },
        crayon_width=128,
        image_token_id=image,
        image_size=image_size,
    )


class SharedWords(nn.Module):
    """An output layer that is the embedding table, but for the last row (the image token)."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self._table = [table]  # in a list: its parameter belongs to the decoder

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of hidden states (..., D)."""
        return F.linear(hidden, self._table[0].weight[:-1])


class TokenWordLoss(nn.Module):
    """Auxiliary losses: a projected image token resembles the words for what it shows, and tells its place.

    Args:
        table: the embedding table.
        words: ids of the words for every kind of label, the three of `place_labels` last.
        grid: image tokens a side.
        numbers: ids of the words for coordinates from 0 to 1, which it is to resemble too; None for none.
    """

    def __init__(
        self, table: nn.Embedding, words: Sequence[Sequence[int]], grid: int, numbers: Tensor | None = None
    ) -> None:
        super().__init__()
        self._table = [table]
        self._places = place_labels(grid)
        self._words = [torch.tensor(ids) for ids in words]
        self._numbers, self._near = numbers, () if numbers is None else near_numbers(grid, len(numbers))
        num = len(words) + len(self._near)
        linears = [nn.Linear(table.embedding_dim, table.embedding_dim, bias=False) for _ in range(num)]
        for linear in linears:
            nn.init.eye_(linear.weight)
        self.maps = nn.ModuleList(linears)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss.

        Args:
            features: (B, P, D), from the projector.
            labels: int64 (B, P, kinds of labels but for places); -1 for none.
        """
        normed = F.rms_norm(features, features.shape[-1:])
        loss = features.new_zeros(())
        labels = torch.cat([labels, self._places.expand(len(labels), -1, -1)], dim=-1)
        maps = list(self.maps)
        for kind, (mapping, words) in enumerate(zip(maps, self._words, strict=False)):
            logits = F.linear(mapping(normed), self._table[0].weight[words])
            loss = loss + mean_loss(logits, labels[..., kind])
        for mapping, near in zip(maps[len(self._words) :], self._near, strict=True):
            logits = F.linear(mapping(normed), self._table[0].weight[self._numbers])  # (B, P, numbers)
            loss = loss + _COORDINATES * F.cross_entropy(logits.flatten(0, 1), near.repeat(len(logits), 1))
        return loss


def place_labels(grid: int) -> Tensor:
    """Left or right, top or bottom, and corner (of `CORNERS`) of every image token, int64 (P, 3)."""
    index = torch.arange(grid**2)
    bottom, right = (index // grid >= grid / 2).long(), (index % grid >= grid / 2).long()
    return torch.stack([right, bottom, 2 * bottom + right], dim=-1)


def near_numbers(grid: int, num: int) -> tuple[Tensor, Tensor]:
    """Which of ``num`` numbers from 0 to 1 each image token is near, across and down: (P, num) each, rows sum to 1."""
    far = torch.linspace(0, 1, num) - (torch.arange(grid)[:, None] + 0.5) / grid
    near = (-far.square() / (2 * _SPREAD**2)).softmax(-1)
    return near.repeat(grid, 1), near.repeat_interleave(grid, 0)


def mimetic_start(model: CoLLaVOForConditionalGeneration) -> None:
    """Let the first query head of every group look for what is like its own token, and pass that on."""
    text = model.config.text
    groups = text.num_attention_heads // text.num_key_value_heads
    with torch.no_grad():
        for layer in model.language_model.layers:
            attention: Any = layer.attention
            packed = attention.wqkv.base.weight.view(text.num_key_value_heads, groups + 2, text.head_dim, -1)
            packed[:, 0] = packed[:, -2]
            out = attention.wo.base.weight.view(-1, text.num_key_value_heads, groups, text.head_dim)
            out[:, :, 0] = 0.5 * packed[:, -1].permute(2, 0, 1)


def word_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of the words for what an image token can say: class, colour, text, and its place three times.

    Raises:
        ValueError: a word is no single token.
    """
    found = []
    places = (["left", "right"], ["top", "bottom"], list(CORNERS))
    for names in ([display_name(name) for name in CLASSES], list(COLOUR_NAMES), list(TEXTS), *places):
        rows = tokenizer(names, add_special_tokens=False).input_ids
        if any(len(ids) != 1 for ids in rows):
            raise ValueError(f"every one of {names} must be one token of the vocabulary")
        found.append([ids[0] for ids in rows])
    return found
