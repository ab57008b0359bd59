"""A cache of two parts, and attention over both: prefixes that many rows share, and a short suffix of each row.

A prompt's prefix (system text, image tokens, object list) is the same for all questions about an image and for all
beams of a search. Its keys and values are held once, and are read without being repeated: the rows of a question and
the query heads that share a key-value head are folded into the query axis. The suffix of a row (the question's end and
what was generated) lies in storage that is allocated once and written in place. Attention over the two parts is joined
by their log-sum-exps, which gives what one softmax over all keys gives (Milakov and Gimelshein 2018, arXiv 1805.02867;
for shared prefixes Juravsky et al. 2024, arXiv 2402.05099).

Rows are laid out as blocks, and every product's shape depends on the row's own question alone, but for the number of
rows, which is one of those that give every row the same bits (``collavo/block_rows.py``). A row's numbers therefore do
not depend on what is next to it.

A CUDA graph replays a step at fixed addresses and shapes. `StaticPrefixCache` is the cache for that: prefixes are
copied once per block into storage of a rounded-up length, and what a row may see is said by masks on the device.

Shape legend: Q questions that are answered, B beams, R >= Q * B rows, T new tokens, H query heads, K key-value heads,
G = H / K heads that share one, P prefix tokens, S suffix slots, L layers, d head width, U prefixes of a static cache,
M questions that each of them has room for.
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
        self.num_beams, self.num_rows, self.prompt_slots = num_beams, num_rows, prompt_slots
        self.prefixes = list(prefixes)
        self.spans = _spans(self.prefixes)
        self.places = list(range(len(self.prefixes)))  # the question's number among those that rows belong to
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
    def num_questions(self) -> int:
        """Q: questions that rows belong to."""
        return len(self.prefixes)

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

    def selected(self, questions: Sequence[int], rows: Tensor, num_rows: int) -> SharedPrefixCache:
        """A cache of some of the questions alone, in other rows; not of a static one.

        Args:
            questions: their numbers in the block, ascending.
            rows: int64, their rows in this cache.
            num_rows: R of the other.
        """
        cache = SharedPrefixCache(
            [self.prefixes[question] for question in questions],
            num_rows=num_rows,
            num_beams=self.num_beams,
            prompt_slots=self.prompt_slots,
            new_slots=self.suffix.shape[4] - self.prompt_slots,
        )
        cache.suffix[:, :, : len(rows)] = self.suffix.index_select(2, rows)
        cache.mask[: len(rows)] = self.mask.index_select(0, rows)
        return cache

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
        start = self.places[question] * self.num_beams
        return slice(start, start + self.num_beams)


class StaticPrefixCache(SharedPrefixCache):
    """A `SharedPrefixCache` whose shapes and addresses are the same for all blocks of a shape, for CUDA graphs.

    Question places lie in a grid: each of U prefixes has M of them; places that no question takes are idle. A decoding
    step counts itself on the device (`decode` ignores its argument), and sees all places of the suffix through a mask.

    Args:
        like: a prefix of the model, for sizes, type and device.
        num_rows: R, at least U * M * B.
        num_beams: B.
        prompt_slots: places for a prompt's end.
        new_slots: places for generated tokens.
        num_prefixes: U.
        questions_each: M.
        prefix_slots: places for a prefix's tokens.
    """

    def __init__(
        self,
        like: Prefix,
        *,
        num_rows: int,
        num_beams: int,
        prompt_slots: int,
        new_slots: int,
        num_prefixes: int,
        questions_each: int,
        prefix_slots: int,
    ) -> None:
        super().__init__([like], num_rows=num_rows, num_beams=num_beams, prompt_slots=prompt_slots, new_slots=new_slots)
        self.num_prefixes, self.questions_each = num_prefixes, questions_each
        key = like.layers[0][0]
        heads, width = key.shape[1], key.shape[3]
        # keys and values of all layers, (L, 2, U, K, P, d), and what is not filled of them
        self.held = key.new_zeros(len(like.layers), 2, num_prefixes, heads, prefix_slots, width)
        self.held_mask = key.new_zeros(num_prefixes, 1, 1, prefix_slots)
        self._place = torch.zeros(1, dtype=torch.long, device=key.device)
        self.prefixes, self.spans, self.places = [], [], []

    @property
    def num_questions(self) -> int:
        """Q: places of questions, idle ones included."""
        return self.num_prefixes * self.questions_each

    @property
    def num_bytes(self) -> int:
        """Memory that suffixes and copied prefixes take."""
        return super().num_bytes + self.held.numel() * self.held.element_size()

    def restart(self, prefixes: Sequence[Prefix]) -> None:
        """Begin another block in the same tensors.

        Args:
            prefixes: the prefix of each question, in order; equal ones (the same object) side by side.

        Raises:
            ValueError: they do not fit.
        """
        spans = _spans(prefixes)
        longest = max(span.stop - span.start for span in spans)
        if len(spans) > self.num_prefixes or longest > self.questions_each:
            raise ValueError(f"{len(spans)} prefixes of up to {longest} questions do not fit")
        self.prefixes, self.spans = list(prefixes), spans
        self.places = [u * self.questions_each + i for u, s in enumerate(spans) for i in range(s.stop - s.start)]
        self.suffix.zero_()  # a number that is none must not outlive its block, not even behind a mask
        self.mask.fill_(-math.inf)
        self._place.fill_(self.prompt_slots - 1)
        self.held.zero_()
        self.held_mask.zero_()
        for unit, span in enumerate(spans):
            length = span.prefix.length
            for layer, pair in enumerate(span.prefix.layers):
                for part, tensor in enumerate(pair):
                    self.held[layer, part, unit, :, :length].copy_(tensor[0])
            self.held_mask[unit, ..., length:] = -math.inf

    def decode(self, step: int) -> None:
        """See `SharedPrefixCache.decode`; ``step`` is counted on the device."""
        self.reading = None
        self._place += 1
        self.mask.index_fill_(3, self._place, 0.0)

    def reorder(self, parents: Tensor, num_generated: int) -> None:
        """See `SharedPrefixCache.reorder`; all places of generated tokens are copied, also before the first.

        Layer by layer, so that the copy that is under way is small.
        """
        for layer in self.suffix:
            generated = layer[..., self.prompt_slots :, :]
            generated.copy_(generated.index_select(1, parents))

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """See `SharedPrefixCache.update`; a decoding step is shown all places."""
        if self.reading is not None:
            return super().update(key, value, layer)
        suffix = self.suffix[layer]
        suffix[0].index_copy_(2, self._place, key)
        suffix[1].index_copy_(2, self._place, value)
        return suffix[0], suffix[1]


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
    if isinstance(shared, StaticPrefixCache):
        return _over_held_prefixes(query, kv_heads, layer, scaling, shared)
    heads, width = query.shape[1], query.shape[3]
    questions, beams = shared.num_questions, shared.num_beams
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


def _over_held_prefixes(
    query: Tensor, kv_heads: int, layer: int, scaling: float, shared: StaticPrefixCache
) -> tuple[Tensor, Tensor]:
    """`_over_prefixes` for a static cache: all prefixes in one call; the rows of a prefix's questions are folded."""
    heads, width = query.shape[1], query.shape[3]
    rows = shared.questions_each * shared.num_beams
    split = (shared.num_prefixes, rows, kv_heads, heads // kv_heads)
    live = query[: split[0] * rows].view(*split, width)  # (U, M * B, K, G, d)
    folded = live.transpose(1, 2).reshape(split[0], kv_heads, -1, width)  # (U, K, M * B * G, d)
    keys, values = shared.held[layer].unbind(0)
    mask = shared.held_mask.expand(-1, -1, folded.shape[2], -1)
    part, part_lse = attend(folded, keys, values, scaling, mask=mask)
    out, lse = shared.buffers(query)
    place = slice(0, split[0] * rows)
    out[place].view(*split, width).copy_(part.view(split[0], kv_heads, rows, split[3], width).transpose(1, 2))
    lse[place].view(*split).copy_(part_lse.view(split[0], kv_heads, rows, split[3]).transpose(1, 2))
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
