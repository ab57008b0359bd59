"""The generation engine: questions about images in, replies out, with nothing computed twice.

One question's way, to be read in this file from `Engine.answer` on and then in ``collavo/decoding.py``: its image is
segmented and encoded once (``collavo/images.py``), and the prefix of its prompt (system text, image tokens, object
list) runs through the decoder once, however many questions and beams follow. The end of its prompt runs alone; then it
takes a place in a block, where a search generates its reply, and leaves it when that has ended. A block reads each
prefix where it lies, without copies (``modeling/shared_prefix.py``), and has its own storage for what differs between
rows. What chooses the tokens is in ``collavo/search.py``.

A reply does not depend on what else is asked: a prefix and a prompt's end run alone, and a block has a number of rows
that gives every row the same numbers (``collavo/block_rows.py``), so that every product is summed up in an order that
only the question itself decides. On the CPU that takes one thread: several cut tensors at places that depend on the
row. Several processes use several cores better. Where memory runs out, fewer questions are in flight
(``collavo/budget.py``), which changes nothing either.

A prefix belongs to pixels, object list and weights: it is keyed by the image's bytes and the prefix's token ids, and
lives in an engine, which has one set of weights.

Shape legend: Q questions of a block, B beams, R rows of a block, T tokens of a prompt's end, V vocabulary.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from configs.common.memory_errors import is_out_of_memory
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segmenter
from modeling.segmenters.errors import SegmenterError
from modeling.shared_prefix import Prefix, SharedPrefixCache
from modeling.threads import one_thread

from .block_rows import BlockRows
from .budget import MOST_QUESTIONS, PREFIX_SHARE, Budget, free_memory
from .crayon import CrayonPrompt, object_list
from .decoding import PREFIX_SLOTS, WARM_UP, BlockDecoder, BlockShape, GraphedBlocks, last_logits
from .errors import NonFiniteError
from .images import ImagePreparer, MapWatcher, PreparedImage
from .model import CoLLaVOForConditionalGeneration
from .options import CrayonConfig
from .processing import CoLLaVOProcessor
from .reply import Reply
from .search import Generation
from .template import IMAGE_TAG, STOP_TAG, Template, reply_text

__all__ = ["Engine", "Generation", "Query", "Reply"]

logger = logging.getLogger(__name__)

PADDING = 0.1
"""Share of the keys that a row reads which may be empty places behind its prompt's end."""

MOST_PADDING = 32
"""A prompt's end gets a multiple of at most so many places in the cache; prompts with as many can share a block."""

STEPS_UNSEEN = {"cpu": 1, "cuda": 8}
"""Decoding steps between two looks whether all replies have ended; a look waits for the device."""

CLOSE_MARGIN = {torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Margins below which a reply could change if products were summed up in another order, by compute type: some ten
times what that usually moves. On the CPU the order is always the same; elsewhere results say how many are so close."""


@dataclass(frozen=True)
class Query:
    """A question.

    Attributes:
        image: the image that it is about, already at the model's size, as it is or prepared (`Engine.prepare`); None
            for a text-only question.
        question: the user's text, without object list and template; an ``<image>`` in it is left out.
    """

    image: DecodedImage | PreparedImage | None
    question: str


@dataclass(frozen=True)
class _Prompt:
    """A question ready to run.

    Attributes:
        index: its place in the call.
        text: the whole prompt.
        image: prepared; None for none.
        stem: token ids of the prefix, one image token per image.
        suffix: token ids of the prompt's end.
        prefix_length: tokens of the prefix, those of the image counted.
    """

    index: int
    text: str
    image: PreparedImage | None
    stem: tuple[int, ...]
    suffix: list[int]
    prefix_length: int

    @property
    def held(self) -> tuple[bytes, tuple[int, ...]]:
        """What its prefix is known by."""
        return b"" if self.image is None else self.image.key, self.stem

    @property
    def slots(self) -> int:
        """Places that the prompt's end gets in a block's cache; decided by the prompt alone.

        They are a multiple of the largest power of two that keeps empty ones below `PADDING`.
        """
        allowed = int(PADDING * (self.prefix_length + len(self.suffix)))
        multiple = min(MOST_PADDING, 1 << max(0, allowed.bit_length() - 1))
        return -(-len(self.suffix) // multiple) * multiple


class Engine:
    """Answers questions with a model, a processor and a segmenter.

    Args:
        model: in evaluation mode, on its device.
        processor: tokenizer and image normalisation.
        segmenter: gives the panoptic maps.
        template: the wrapper of the conversation.
        identity: of the weights and settings; a part of a run's identity.
        crayon: what the model is told of an image's objects.
        most_questions: in flight at a time, where memory allows so many.
        graphs: replay decoding steps as CUDA graphs, on CUDA.
        images: what has prepared images before there was a model, with the same parts; None for nothing.

    Attributes:
        budget: how many questions are in flight now.
        shape_changes: what memory forced that can change last digits, a sentence each.
    """

    def __init__(
        self,
        model: CoLLaVOForConditionalGeneration,
        processor: CoLLaVOProcessor,
        segmenter: Segmenter,
        template: Template,
        identity: str = "",
        crayon: CrayonConfig | None = None,
        *,
        most_questions: int = MOST_QUESTIONS,
        graphs: bool = True,
        images: ImagePreparer | None = None,
    ) -> None:
        self.model, self.processor, self.segmenter, self.template = model, processor, segmenter, template
        self.fingerprint = identity
        self.crayon = crayon or CrayonConfig()
        self._images = images or ImagePreparer(processor, segmenter, self.crayon, model.device)
        self._images.attach(model)
        self._prefixes: dict[tuple[bytes, tuple[int, ...]], Prefix] = {}
        stop = processor.tokenizer.convert_tokens_to_ids(STOP_TAG)
        eos = model.config.text.eos_token_id
        self.end_ids = sorted({*(eos if isinstance(eos, list) else [eos]), stop} - {None, processor.unknown_id})
        self.budget = Budget(most_questions)
        self.shape_changes: list[str] = []
        self._block_rows = BlockRows(model)
        self._most_rows: int | None = None  # of a block, once memory has forced a limit
        self._graphs: GraphedBlocks | None = None
        if graphs and model.device.type == "cuda":
            self._graphs = GraphedBlocks(model, self.end_ids)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images it takes."""
        return self._images.image_size

    @property
    def on_map(self) -> MapWatcher | None:
        """Called once with every image's name, panoptic map and crayon prompt; None for nobody."""
        return self._images.on_map

    @on_map.setter
    def on_map(self, watcher: MapWatcher | None) -> None:
        self._images.on_map = watcher

    def prepare(self, images: Sequence[DecodedImage], *, features: bool = True) -> list[PreparedImage | SegmenterError]:
        """Segment and encode images together, ahead of the questions about them; may run next to `answer`, in a thread.

        Args:
            images: at the model's size.
            features: whether they are encoded now, which takes memory on the device until they are let go.
        Returns: one each, in order, to be asked about; the error of an image that has no map.
        """
        return self._images.prepare(images, features=features)

    def maps(self, images: Sequence[DecodedImage]) -> list[tuple[PanopticMap, CrayonPrompt]]:
        """Maps of images as the model is shown them, and the crayon prompts made of them; nothing is kept.

        Raises:
            SegmenterError: one of them has no map.
        """
        return self._images.maps(images)

    def fixed_threads(self) -> AbstractContextManager[None]:
        """Within it `prepare` and `answer` may run in several threads; see `modeling.threads.one_thread`."""
        return one_thread(self.model.device)

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
        """Answer questions.

        Args:
            queries: any number, with any mix of images, repeated images and none.
            generation: how to search.
        Returns: one reply each, in order; the same whatever else is asked.

        Raises:
            NonFiniteError: the model's scores for some of them are NaN or infinite; it holds the other replies.
        """
        with one_thread(self.model.device):
            found = self._answer(queries, generation)
        replies = [found[index] for index in range(len(queries))]
        whole = [reply for reply in replies if reply is not None]
        if len(whole) < len(replies):
            raise NonFiniteError(non_finite(self.model.dtype), replies)
        return whole

    def _answer(self, queries: Sequence[Query], generation: Generation) -> dict[int, Reply | None]:
        """Replies by their place in the call; None where the model's scores are not finite."""
        replies: dict[int, Reply | None] = {}
        for window in self._windows(queries):
            while window:
                block = self._next_block(window, generation)
                answered = self._answer_if_it_fits(block, generation)
                if answered is None:
                    continue  # with fewer questions, or rows
                replies |= answered
                window = [prompt for prompt in window if prompt.index not in answered]
                needed = {prompt.held for prompt in (*window, *block)}  # the next call may go on with the block's
                self._prefixes = {held: p for held, p in self._prefixes.items() if held in needed}
        return replies

    def _answer_if_it_fits(self, block: Sequence[_Prompt], generation: Generation) -> dict[int, Reply | None] | None:
        """Answer a block's questions; None where memory runs out, once there is more room for another try.

        Raises:
            RuntimeError, MemoryError: memory runs out with one question in as few rows as its beams need.
        """
        try:
            answered = self._answer_block(block, generation)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self._can_shrink(block, generation):
                raise
        else:
            self.budget.fits()
            return answered
        self._shrink(block, generation)  # here the error has let go of the tensors of its frames
        return None

    def _holds_more_than(self, block: Sequence[_Prompt]) -> bool:
        """Whether anything is kept that this block does not need."""
        graphs = self._graphs is not None and self._graphs.kept > 0
        return graphs or bool(self._prefixes.keys() - {prompt.held for prompt in block})

    def _can_shrink(self, block: Sequence[_Prompt], generation: Generation) -> bool:
        return len(block) > 1 or self._holds_more_than(block) or self._rows(1, generation) > generation.num_beams

    def _shrink(self, block: Sequence[_Prompt], generation: Generation) -> None:
        """Make room: drop what is kept, and let fewer questions be in flight, or (for a single one) rows."""
        alone = len(block) == 1 and not self._holds_more_than(block)
        self._prefixes.clear()
        if self._graphs is not None:
            self._graphs.clear()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if alone:
            before = self._rows(1, generation)
            self._most_rows = max(before // 2, generation.num_beams)
            change = f"blocks of {self._most_rows} rows instead of {before}"
            self.shape_changes.append(change)
            logger.warning("memory ran out with a single question: %s, which can change last digits", change)
        else:
            self.budget.shrink(len(block))
            logger.info("memory ran out with %d questions; now at most %d", len(block), self.budget.questions)

    def forget(self) -> None:
        """Drop what is kept of images seen before."""
        self._prefixes.clear()
        self._images.forget()

    def _rows(self, questions: int, generation: Generation) -> int:
        """Rows of a block of so many questions; where memory has forced a limit, no more, but for their beams."""
        needed = questions * generation.num_beams
        return self._block_rows.fitting(needed) if self._most_rows is None else max(self._most_rows, needed)

    def _room(self, generation: Generation) -> int:
        """Questions that the largest block holds."""
        rows = self._block_rows.most if self._most_rows is None else self._most_rows
        return max(1, rows // generation.num_beams)

    def _next_block(self, window: Sequence[_Prompt], generation: Generation) -> list[_Prompt]:
        """The first questions of a window that share a block: of equal places, an image's side by side."""
        room = min(self._room(generation), self.budget.questions)
        images = {held: order for order, held in reversed(list(enumerate(prompt.held for prompt in window)))}
        fewest = min(prompt.slots for prompt in window)
        alike = sorted((p for p in window if p.slots == fewest), key=lambda p: (images[p.held], p.index))
        return alike[:room] if self._graphs is None else _grid(alike, room)

    def _windows(self, queries: Sequence[Query]) -> Iterator[list[_Prompt]]:
        """Questions that are answered together, in order: as many as may be, and as their prefixes leave memory for."""
        window: list[_Prompt] = []
        held: dict[tuple[bytes, tuple[int, ...]], int] = {}
        for index, query in enumerate(queries):
            prompt = self._prompt(index, query)
            more = {} if prompt.held in held else {prompt.held: self._prefix_bytes(prompt.prefix_length)}
            too_large = bool(more) and sum((*held.values(), *more.values())) > self._memory_for_prefixes()
            if window and (too_large or len(window) >= self.budget.most):
                yield window
                window, held = [], {}
                more = {prompt.held: self._prefix_bytes(prompt.prefix_length)}
            window.append(prompt)
            held |= more
        if window:
            yield window

    def _memory_for_prefixes(self) -> int:
        """Bytes that the prefixes of a window may take, those that are kept now included; looked at anew every time."""
        kept = sum(prefix.num_bytes for prefix in self._prefixes.values())
        share = PREFIX_SHARE if self._graphs is None else PREFIX_SHARE / 2  # graphs read a copy
        return int(share * (free_memory(self.model.device) + kept))

    def _prefix_length(self, stem: Sequence[int]) -> int:
        """Tokens of a prefix, those of its image counted."""
        return len(stem) + (self.processor.grid**2 - 1) * list(stem).count(self.model.config.image_token_id)

    def _prefix_bytes(self, tokens: int) -> int:
        text = self.model.config.text
        width = text.num_key_value_heads * text.head_dim
        return int(2 * text.num_hidden_layers * tokens * width * self.model.dtype.itemsize)

    def _prompt(self, index: int, query: Query) -> _Prompt:
        """Cut the prompt into the prefix that it shares with others and its own end."""
        image = self._images.one(query.image) if isinstance(query.image, DecodedImage) else query.image
        question = query.question.replace(IMAGE_TAG, "")  # the image has its place; a second one would have no pixels
        objects = None if image is None else object_list(image.crayon.objects)
        before, after = self.template.parts(objects, question, with_objects=self.crayon.object_list)
        ids = self.processor.encode([before + after])[0]
        stem = self.processor.encode([before.rstrip()])[0][:-1]  # the last token could merge with the question's first
        if ids[: len(stem)] != stem:
            stem = ids[: ids.index(self.model.config.image_token_id) + 1] if image is not None else ids[:1]
        return _Prompt(index, before + after, image, tuple(stem), ids[len(stem) :], self._prefix_length(stem))

    def _prefix(self, prompt: _Prompt) -> Prefix:
        if prompt.held not in self._prefixes:
            self._prefixes[prompt.held] = self._run_prefix(prompt)
        return self._prefixes[prompt.held]

    def _run_prefix(self, prompt: _Prompt) -> Prefix:
        """Run one prefix through the decoder, alone."""
        features, semantic, numbering = None, None, None
        if prompt.image is not None:
            features = self._images.features(prompt.image)
            semantic, numbering = prompt.image.crayon.semantic, prompt.image.crayon.numbering
        embeds, image = self.model.embed_prompt(prompt.stem, features, semantic, numbering)
        cache = DynamicCache(config=self.model.config.text)
        last_logits(self.model, embeds, torch.arange(embeds.shape[1], device=embeds.device), cache, image)
        return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))

    def _answer_block(self, block: Sequence[_Prompt], generation: Generation) -> dict[int, Reply | None]:
        """Answer a block's questions; see `_answer`."""
        prefixes = [self._prefix(prompt) for prompt in block]
        decoder, step = self._decoder(block, prefixes, generation)
        logits = self._read_prompts(block, decoder.cache)
        decoder.start(logits, [p.prefix_length + len(p.suffix) for p in block], [p.index for p in block])
        device = self.model.device
        look = STEPS_UNSEEN.get(device.type, STEPS_UNSEEN["cuda"])
        for number in range(generation.max_new_tokens - 1):
            if number % look == 0:
                unfinished = decoder.unfinished()
                if not unfinished:
                    break
                rows = self._rows(len(unfinished), generation)
                if self._graphs is None and 2 * rows <= decoder.cache.num_rows:
                    decoder.go_on_with(unfinished, rows)
            step(number)
        return {
            prompt.index: self.reply(prompt.text, ids, margin) if finite else None
            for prompt, (ids, finite, margin) in zip(block, decoder.results(), strict=True)
        }

    def _decoder(
        self, block: Sequence[_Prompt], prefixes: Sequence[Prefix], generation: Generation
    ) -> tuple[BlockDecoder, Callable[[int], None]]:
        """What generates a block's replies, and its step: a replayed CUDA graph where that can be."""
        if self._graphs is not None and _is_replayable(generation):
            shape = self._shape(block, prefixes, generation)
            if graphed := self._graphs.decoder(shape, prefixes):
                return graphed[0], lambda _: graphed[1]()
            self._graphs = None
        cache = SharedPrefixCache(
            prefixes,
            num_rows=self._rows(len(block), generation),
            num_beams=generation.num_beams,
            prompt_slots=block[0].slots,
            new_slots=generation.max_new_tokens,
        )
        decoder = BlockDecoder(self.model, cache, generation, self.end_ids)
        return decoder, decoder.step

    def _shape(self, block: Sequence[_Prompt], prefixes: Sequence[Prefix], generation: Generation) -> BlockShape:
        """The shape of a block that `_grid` made."""
        room, counts = self._room(generation), Counter(prompt.held for prompt in block)
        each = _places(max(counts.values()), room)
        longest = max(prefix.length for prefix in prefixes)
        return BlockShape(
            generation=generation,
            num_rows=self._rows(room, generation),
            prompt_slots=block[0].slots,
            num_prefixes=_places(len(counts), room // each),
            questions_each=each,
            prefix_slots=-(-longest // PREFIX_SLOTS) * PREFIX_SLOTS,
        )

    def _read_prompts(self, block: Sequence[_Prompt], cache: SharedPrefixCache) -> Tensor:
        """Run the ends of the prompts, each alone; logits (Q, 1, V) of the last tokens."""
        rows = []
        for number, prompt in enumerate(block):
            cache.read_prompt(number, len(prompt.suffix))
            ids = torch.tensor([prompt.suffix], device=self.model.device)
            embeds = self.model.get_input_embeddings()(ids)
            positions = torch.arange(len(prompt.suffix), device=self.model.device) + prompt.prefix_length
            rows.append(last_logits(self.model, embeds, positions, cache))
        return torch.stack(rows)

    def reply(self, prompt: str, new_ids: list[int], margin: float = float("inf")) -> Reply:
        """Turn generated ids into a reply: cut at the first end token."""
        ends = [index for index, token in enumerate(new_ids) if token in self.end_ids]
        kept = new_ids[: ends[0]] if ends else new_ids
        text = reply_text(self.processor.decode(kept))
        return Reply(
            text=text,
            prompt=prompt,
            num_tokens=len(kept) + bool(ends),
            finished=bool(ends),
            margin=margin,
            close=margin < CLOSE_MARGIN.get(self.model.dtype, 0.0),
            note=self.shape_changes[-1] if self.shape_changes else "",
        )


def non_finite(dtype: torch.dtype) -> str:
    """Why a question has no answer whose scores are not finite, and what to try.

    Args:
        dtype: the model's compute type.
    """
    advice = "a weight of the checkpoint may be damaged or far too large"
    if dtype == torch.float16:
        advice = f"values beyond 65504 overflow in fp16: try LLM.DTYPE bf16 or fp32; or {advice}"
    return f"the model's scores are not finite (NaN or infinity), so it has no answer; {advice}"


def _is_replayable(generation: Generation) -> bool:
    """Whether a decoding step may be a CUDA graph: nothing is drawn or handed over, and it pays."""
    watched = generation.on_token is not None  # called from Python, which a replayed step never runs
    return generation.temperature == 0 and not watched and generation.max_new_tokens > WARM_UP


def _places(number: int, most: int) -> int:
    """A number rounded up to a power of two, so that few shapes of block occur, and no more than ``most``."""
    return min(most, 1 << (number - 1).bit_length())


def _grid(prompts: Sequence[_Prompt], room: int) -> list[_Prompt]:
    """The first of some prompts, image by image, that fill a grid of images by questions with about as many each.

    Args:
        prompts: those of an image side by side.
        room: questions of a block.
    """
    runs = [list(run)[:room] for _, run in groupby(prompts, key=lambda prompt: prompt.held)]
    each = _places(len(runs[0]), room)
    alike = [run for run in runs if _places(len(run), room) == each]
    return [prompt for run in alike[: room // each] for prompt in run]
