"""A cache of two parts, and attention over both: prefixes that many rows share, and a short suffix of each row.

A prompt's prefix (system text, image tokens, object list) is the same for all questions about an image and for all
beams of a search. Its keys and values are held once, and are read without being repeated: the rows of a question and
the query heads that share a key-value head are folded into the query axis. The suffix of a row (the question's end and
what was generated) lies in storage that is allocated once and written in place. Attention over the two parts is joined
by their log-sum-exps, which gives what one softmax over all keys gives (Milakov and Gimelshein 2018, arXiv 1805.02867;
for shared prefixes Juravsky et al. 2024, arXiv 2402.05099).

Rows are laid out as blocks of a fixed number of rows, and every product's shape depends on the row's own question
alone. A row's numbers therefore do not depend on what is next to it. The number of rows is a multiple of 16, the widest
vector of a CPU: elements behind the last whole vector would be computed by other instructions than the rest.

Shape legend: Q questions that are answered, B beams, R >= Q * B rows, T new tokens, H query heads, K key-value heads,
G = H / K heads that share one, P prefix tokens, S suffix slots, L layers, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

SHARED_PREFIX = "shared_prefix"
"""Name of the attention function that reads a `SharedPrefixCache`."""

_FLASH_ON_CPU = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_FLASH_ON_CUDA = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Prefix:
    """Decoder state after a prompt's prefix.

    Attributes:
        layers: keys and values of each layer, (1, K, P, d), rotated.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def length(self) -> int:
        """Number of tokens P."""
        return int(self.layers[0][0].shape[-2])

    @property
    def num_bytes(self) -> int:
        """Memory that keys and values take."""
        return sum(t.numel() * t.element_size() for pair in self.layers for t in pair)


@dataclass(frozen=True)
class _Span:
    """Consecutive questions of a block that share a prefix."""

    prefix: Prefix
    start: int
    stop: int


class SharedPrefixCache:
    """Keys and values of a block of rows: shared prefixes, and a preallocated suffix per row.

    Row ``q * B + b`` is beam ``b`` of question ``q``; further rows are idle: nothing that they hold is ever used. A
    suffix has ``prompt_slots`` places for the end of the prompt, which the beams of a question have in common, and
    ``new_slots`` for generated tokens.

    Args:
        prefixes: the prefix of each question, in order; equal ones (the same object) side by side.
        num_rows: R.
        num_beams: B.
        prompt_slots: places for a prompt's end.
        new_slots: places for generated tokens.
    """

    attention = SHARED_PREFIX

    def __init__(
        self, prefixes: Sequence[Prefix], *, num_rows: int, num_beams: int, prompt_slots: int, new_slots: int
    ) -> None:
        self.num_beams, self.prompt_slots = num_beams, prompt_slots
        self.prefixes = list(prefixes)
        self.spans = _spans(self.prefixes)
        key = self.prefixes[0].layers[0][0]
        layers, slots = len(self.prefixes[0].layers), prompt_slots + new_slots
        # keys and values of all layers, (L, 2, R, K, S, d)
        self.suffix = key.new_zeros(layers, 2, num_rows, key.shape[1], slots, key.shape[3])
        # what a row must not see: the empty places behind its own prompt's end
        self.mask = key.new_full((num_rows, 1, 1, slots), -math.inf)
        self.mask[..., prompt_slots:] = 0
        self._buffers: tuple[Tensor, Tensor] | None = None
        self.reading: int | None = None
        self.step = 0

    @property
    def num_bytes(self) -> int:
        """Memory that the suffixes take."""
        return self.suffix.numel() * self.suffix.element_size()

    def read_prompt(self, question: int, length: int) -> None:
        """Let the next forward pass be over the end of one question's prompt.

        Args:
            question: its number in the block; one row of ``length`` tokens goes through the decoder.
            length: T, the tokens of its prompt's end.
        """
        self.reading = question
        self.mask[self._rows(question), ..., :length] = 0

    def decode(self, step: int) -> None:
        """Let the next forward pass be over one generated token of every row, the ``step``-th from 0."""
        self.reading, self.step = None, step

    def reorder(self, parents: Tensor, num_generated: int) -> None:
        """Give every row the generated tokens of another one; the prompt's end is common to a question's beams.

        Args:
            parents: int64 (R,), the row that each row continues; of the same question.
            num_generated: generated tokens that are in the cache.
        """
        if num_generated == 0:
            return
        generated = self.suffix[..., self.prompt_slots : self.prompt_slots + num_generated, :]
        generated.copy_(generated.index_select(2, parents))

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write new keys and values in their place.

        Args:
            key: (1, K, T, d) of one prompt's end, or (R, K, 1, d) of one decoding step.
            value: like ``key``.
            layer: number of the layer.
        Returns: keys and values of the suffix that the new tokens see: what was passed in, or (R, K, S', d) with the
            places that have been filled so far.
        """
        suffix = self.suffix[layer]
        if self.reading is not None:
            rows = suffix[:, self._rows(self.reading), :, : key.shape[-2]]
            rows[0].copy_(key.expand(self.num_beams, -1, -1, -1))
            rows[1].copy_(value.expand(self.num_beams, -1, -1, -1))
            return key, value
        place = self.prompt_slots + self.step
        suffix[0, :, :, place].copy_(key[:, :, 0])
        suffix[1, :, :, place].copy_(value[:, :, 0])
        seen = suffix[..., : place + 1, :]
        return seen[0], seen[1]

    def buffers(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Room for the rows' attention over their prefixes, (R, H, d), and its log-sum-exp, (R, H), anew a layer.

        Idle rows keep the values of a row without a prefix: zeros, and minus infinity.
        """
        if self._buffers is None:
            rows, heads, _, width = query.shape
            lse = query.new_full((rows, heads), -math.inf, dtype=torch.float32)
            self._buffers = query.new_zeros(rows, heads, width), lse
        return self._buffers

    def _rows(self, question: int) -> slice:
        return slice(question * self.num_beams, (question + 1) * self.num_beams)


def _spans(prefixes: Sequence[Prefix]) -> list[_Span]:
    """Runs of one and the same prefix."""
    starts = [i for i, prefix in enumerate(prefixes) if i == 0 or prefix is not prefixes[i - 1]]
    return [
        _Span(prefixes[start], start, stop) for start, stop in zip(starts, [*starts[1:], len(prefixes)], strict=True)
    ]


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    shared: SharedPrefixCache,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend to a shared prefix and to the row's own suffix.

    Args:
        module: the calling attention; its ``layer_idx`` names the layer.
        query: (1, H, T, d) of one prompt's end, or (R, H, 1, d) of one decoding step.
        key: the suffix's, from `SharedPrefixCache.update`.
        value: like ``key``.
        attention_mask: None; what may be seen is known to the cache.
        scaling: factor of the scores.
        dropout: 0, since this is for inference.
        shared: the cache.
    Returns: (1, T, H, d) or (R, 1, H, d), and no weights.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if shared.reading is not None:
        prefix = shared.prefixes[shared.reading].layers[layer]
        folded = query.reshape(1, key.shape[1], -1, query.shape[-1])  # (1, K, G * T, d)
        out, lse = attend(folded, *prefix, scaling)
        own, own_lse = attend(query, key, value, scaling, causal=True)
        return join(own, own_lse, out.reshape(query.shape), lse.reshape(query.shape[:-1])).transpose(1, 2), None
    own, own_lse = attend(query, key, value, scaling, mask=shared.mask[..., : key.shape[-2]])  # (R, H, 1, d)
    out, lse = _over_prefixes(query, key.shape[1], layer, scaling, shared)
    return join(own, own_lse, out.view(own.shape), lse.view(own_lse.shape)).transpose(1, 2), None


def _over_prefixes(
    query: Tensor, kv_heads: int, layer: int, scaling: float, shared: SharedPrefixCache
) -> tuple[Tensor, Tensor]:
    """Attention of a block's rows over their prefixes, and log-sum-exp, in the order of the heads; idle rows get none.

    The beams of a question and the query heads that share a key-value head are folded into one query axis.
    """
    heads, width = query.shape[1], query.shape[3]
    questions, beams = len(shared.prefixes), shared.num_beams
    split = (questions, beams, kv_heads, heads // kv_heads)
    live = query[: questions * beams].view(*split, width)  # (Q, B, K, G, d)
    folded = live.transpose(1, 2).reshape(questions, kv_heads, -1, width)  # (Q, K, B * G, d)
    out, lse = shared.buffers(query)
    for span in shared.spans:
        keys, values = (t.expand(span.stop - span.start, -1, -1, -1) for t in span.prefix.layers[layer])
        part, part_lse = attend(folded[span.start : span.stop], keys, values, scaling)
        place = slice(span.start * beams, span.stop * beams)
        out[place].view(-1, *split[1:], width).copy_(part.view(-1, kv_heads, beams, split[3], width).transpose(1, 2))
        lse[place].view(-1, *split[1:]).copy_(part_lse.view(-1, kv_heads, beams, split[3]).transpose(1, 2))
    return out, lse


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention with the log-sum-exp of its scores.

    Args:
        query: (N, H, T, d).
        key: (N, K, S, d); H is a multiple of K. Not copied where rows share it (`Tensor.expand`).
        value: like ``key``.
        scaling: factor of the scores.
        causal: token t sees keys 0 to t only.
        mask: additive, broadcastable to (N, H, T, S), in the query's type.
    Returns: output (N, H, T, d) in the query's type, and log-sum-exp (N, H, T) in float32.
    """
    if query.device.type == "cpu" and query.dtype in _FLASH_ON_CPU:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # type: ignore[no-any-return]
            query, key, value, 0.0, causal, attn_mask=mask, scale=scaling
        )
    groups = query.shape[1] // key.shape[1]
    if query.device.type == "cuda" and query.dtype in _FLASH_ON_CUDA and mask is None:
        key, value = (t.repeat_interleave(groups, 1) if groups > 1 else t for t in (key, value))
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, 0.0, causal, False, scale=scaling)[:2]  # type: ignore[no-any-return]
    return _attend_by_products(query, key, value, scaling, causal=causal, mask=mask)


def _attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, *, causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`attend` by two matrix products and a log-sum-exp in float32, for devices and types without a fused kernel."""
    grouped = query.reshape(len(query), key.shape[1], -1, *query.shape[2:])  # (N, K, G, T, d)
    scores = (grouped @ key.unsqueeze(2).transpose(-1, -2)).float() * scaling  # (N, K, G, T, S)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores + mask.unsqueeze(2)
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.unsqueeze(-1)).to(query.dtype)
    return (weights @ value.unsqueeze(2)).flatten(1, 2), lse.flatten(1, 2)


def join(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> Tensor:
    """Attention over two sets of keys, from the attention over each.

    Args:
        first: output (..., d) over the first set.
        first_lse: its log-sum-exp (...), float32.
        second: output over the second set.
        second_lse: its log-sum-exp.
    Returns: (..., d) in the type of ``first``; the weights are computed in float32.
    """
    share = torch.sigmoid(second_lse - first_lse).unsqueeze(-1)  # of the second set in the sum of exponentials
    return torch.lerp(first.float(), second.float(), share).to(first.dtype)
