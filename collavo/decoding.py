"""The decoding loop of a block: one step in tensors that keep their addresses, run eagerly or replayed as a CUDA graph.

A step gives every row the suffix of the beam that it continues, runs the rows' last tokens through the decoder, and
lets the search choose the next ones. What a step reads and changes lies in tensors that are made once, so that on CUDA
a step is captured once for a shape of block and then replayed. Where a graph cannot be captured the same step runs
eagerly, and one line says so.

Shape legend: Q questions of a block, B beams, R rows of a block, V vocabulary, D width.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from modeling.internlm2 import CACHE
from modeling.plora import ImageTokens
from modeling.shared_prefix import Prefix, SharedPrefixCache, StaticPrefixCache

from .model import CoLLaVOForConditionalGeneration
from .search import Generation, start_search

logger = logging.getLogger(__name__)

PREFIX_SLOTS = 128
"""A prefix that a graph reads takes a multiple of so many places, so that few shapes of block occur."""

GRAPHS_KEPT = 4
"""Shapes of block whose graphs and buffers are kept; the one that was not used for longest goes first."""

WARM_UP = 2
"""Steps before a capture: libraries allocate their workspaces in them. A block that is decoded has at least two."""


def last_logits(
    model: CoLLaVOForConditionalGeneration,
    embeds: Tensor,
    positions: Tensor,
    cache: DynamicCache | SharedPrefixCache,
    image: ImageTokens | None = None,
) -> Tensor:
    """Run tokens through the decoder.

    Args:
        model: the model.
        embeds: (rows, T, D).
        positions: int64 (T,) or (rows, T).
        cache: keys and values of earlier tokens; extended in place.
        image: the image tokens among ``embeds``.
    Returns: logits (rows, V), float32, of the last tokens.
    """
    out = model(
        inputs_embeds=embeds,
        position_ids=positions.expand(len(embeds), -1),
        image=image,
        use_cache=True,
        logits_to_keep=1,
        **{CACHE: cache},
    )
    return out.logits[:, -1].float()  # type: ignore[no-any-return]


Found: TypeAlias = tuple[list[int], bool, float]
"""What a search found for a question: ids of its reply, whether all its logits were numbers, its margin."""


class BlockDecoder:
    """Generates the replies of a block's questions.

    Args:
        model: the model.
        cache: of the block; idle questions that it has room for are searched, too, and nothing is made of them.
        generation: how to search.
        end_ids: ids that end a reply.
    """

    def __init__(
        self,
        model: CoLLaVOForConditionalGeneration,
        cache: SharedPrefixCache,
        generation: Generation,
        end_ids: Sequence[int],
    ) -> None:
        self.model, self.cache = model, cache
        self.search = start_search(generation, [0] * cache.num_questions, end_ids, cache.suffix.device)
        self._left: dict[int, Found] = {}
        self._lay_out()

    def _lay_out(self) -> None:
        """Make room for what a step reads and changes, and see to it that the search's choices land there."""
        cache, device = self.cache, self.cache.suffix.device
        shape = cache.num_questions, cache.num_beams
        self._live = shape[0] * shape[1]
        self._tokens = torch.zeros(cache.num_rows, dtype=torch.long, device=device)
        self._parents = torch.arange(cache.num_rows, device=device)
        self._positions = torch.zeros(cache.num_rows, 1, dtype=torch.long, device=device)
        self._next_tokens = self._tokens[: self._live].view(shape)
        self._next_parents = self._parents[: self._live].view(shape)
        self._first_rows = torch.arange(shape[0], device=device)[:, None] * shape[1]  # (Q, 1)
        self._places = torch.tensor(cache.places, dtype=torch.long, device=device)

    def start(self, logits: Tensor, lengths: Sequence[int], draws: Sequence[int]) -> None:
        """Begin with the first token of each reply.

        Args:
            logits: float32 (questions, 1, V), after each prompt.
            lengths: tokens of each prompt, the prefix included.
            draws: see `start_search`.
        """
        device, beams = self._tokens.device, self.cache.num_beams
        self.search.restart(draws)
        self._tokens.zero_()
        torch.arange(self.cache.num_rows, out=self._parents)
        places = self.cache.places
        self._numbers, self._left = list(range(len(places))), {}
        rows = torch.tensor([place * beams + beam for place in places for beam in range(beams)])
        positions = torch.zeros(self.cache.num_rows, 1, dtype=torch.long)
        positions[rows, 0] = torch.tensor(lengths).repeat_interleave(beams)
        self._positions.copy_(positions)
        self._places = torch.tensor(places, device=device)
        if len(places) < self.cache.num_questions:
            whole = logits.new_zeros(self.cache.num_questions, *logits.shape[1:])
            logits = whole.index_copy_(0, self._places, logits)
        self._take(logits)

    def step(self, number: int) -> None:
        """Take one decoding step, the ``number``-th from 0; nothing is read back, and no tensor that stays is new."""
        if self.cache.num_beams > 1:
            self.cache.reorder(self._parents, number)
        self.cache.decode(number)
        embeds = self.model.get_input_embeddings()(self._tokens)[:, None]  # (R, 1, D)
        logits = last_logits(self.model, embeds, self._positions, self.cache)[: self._live]
        self._positions += 1
        self._take(logits.view(self.cache.num_questions, self.cache.num_beams, -1))

    def _take(self, logits: Tensor) -> None:
        tokens, parents = self.search.advance(logits)
        self._next_tokens.copy_(tokens)
        torch.add(parents, self._first_rows, out=self._next_parents)

    def unfinished(self) -> list[int]:
        """Places among the questions in it of those whose reply can still change; waits for the device."""
        return [place for place, done in enumerate(self.search.done()[self._places].tolist()) if not done]

    def go_on_with(self, kept: Sequence[int], num_rows: int) -> None:
        """Let finished questions leave, and decode the others in fewer rows; not for a static cache.

        Args:
            kept: places among the questions in it of those that stay, see `unfinished`.
            num_rows: rows from now on; a number that gives every row the same numbers.
        """
        self._left |= {self._numbers[place]: found for place, found in enumerate(self._found()) if place not in kept}
        self._numbers = [self._numbers[place] for place in kept]
        beams, device = self.cache.num_beams, self._tokens.device
        places = torch.tensor(kept, device=device)
        rows = (places[:, None] * beams + torch.arange(beams, device=device)).flatten()  # (kept * B,)
        tokens, positions = self._tokens[rows], self._positions[rows]
        parents = (self._next_parents - self._first_rows)[places]  # beams within their question
        self.search.select(places)
        self.cache = self.cache.selected(kept, rows, num_rows)
        self._lay_out()
        self._tokens[: self._live], self._positions[: self._live] = tokens, positions
        torch.add(parents, self._first_rows, out=self._next_parents)

    def results(self) -> list[Found]:
        """Of each question that the block began with; waits for the device."""
        found = self._left | dict(zip(self._numbers, self._found(), strict=True))
        return [found[number] for number in sorted(found)]

    def _found(self) -> list[Found]:
        search = self.search
        found = (t[self._places].tolist() for t in (search.sequences(), search.finite, search.margin))
        return list(zip(*found, strict=True))


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What a captured step depends on: blocks of one shape share a graph.

    Attributes:
        generation: how to search.
        num_rows: R.
        prompt_slots: places for a prompt's end.
        num_prefixes: prefixes that the block has room for.
        questions_each: questions that each of them has room for.
        prefix_slots: places for a prefix's tokens.
    """

    generation: Generation
    num_rows: int
    prompt_slots: int
    num_prefixes: int
    questions_each: int
    prefix_slots: int


def capture_cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Capture a step as a CUDA graph, after a warm-up on a stream of its own; returns what replays it.

    Args:
        step: works on tensors that stay; what it computes now has no meaning.

    Raises:
        RuntimeError: an operator cannot be captured, or memory runs out.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # images may be prepared in another thread meanwhile, whose allocations are no matter of this capture
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


class GraphedBlocks:
    """Decoders of blocks by shape, each with its step captured once.

    Args:
        model: the model.
        end_ids: ids that end a reply.
    """

    def __init__(self, model: CoLLaVOForConditionalGeneration, end_ids: Sequence[int]) -> None:
        self.model, self.end_ids = model, end_ids
        self._kept: OrderedDict[BlockShape, tuple[BlockDecoder, StaticPrefixCache, Callable[[], None]]] = OrderedDict()

    @property
    def kept(self) -> int:
        """Number of graphs that are kept."""
        return len(self._kept)

    def clear(self) -> None:
        """Give back the memory of all graphs."""
        self._kept.clear()

    def decoder(self, shape: BlockShape, prefixes: Sequence[Prefix]) -> tuple[BlockDecoder, Callable[[], None]] | None:
        """The decoder of a shape, reading a block's prefixes, and its replayed step.

        Args:
            shape: of the block.
            prefixes: see `StaticPrefixCache.restart`.
        Returns: None where no graph can be captured, which is said once.
        """
        if shape not in self._kept and not self._capture(shape, prefixes[0]):
            return None
        self._kept.move_to_end(shape)
        decoder, cache, replay = self._kept[shape]
        cache.restart(prefixes)
        return decoder, replay

    def _capture(self, shape: BlockShape, like: Prefix) -> bool:
        """Capture a step of a shape; whether that can be done."""
        while len(self._kept) >= GRAPHS_KEPT:
            self._kept.popitem(last=False)
        cache = self._cache(shape, like)
        decoder = BlockDecoder(self.model, cache, shape.generation, self.end_ids)
        try:
            cache.restart([like])
            self._kept[shape] = decoder, cache, capture_cuda_graph(lambda: decoder.step(0))
        except RuntimeError as error:
            self.clear()
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logger.warning("no CUDA graph of a decoding step (%s); steps run one operator at a time", reason[0])
            return False
        return True

    def _cache(self, shape: BlockShape, like: Prefix) -> StaticPrefixCache:
        return StaticPrefixCache(
            like,
            num_rows=shape.num_rows,
            num_beams=shape.generation.num_beams,
            prompt_slots=shape.prompt_slots,
            new_slots=shape.generation.max_new_tokens,
            num_prefixes=shape.num_prefixes,
            questions_each=shape.questions_each,
            prefix_slots=shape.prefix_slots,
        )
