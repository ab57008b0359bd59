"""The generation engine: questions about images in, replies out, with nothing computed twice.

One question's way: its image is segmented and encoded once, and the prefix of its prompt (system text, image tokens,
object list) runs through the decoder once, however many questions and beams follow. The end of its prompt runs alone;
then it takes a place in a block, where a search generates its reply. A block reads each prefix where it lies, without
copies (``modeling/shared_prefix.py``), and has its own storage for what differs between rows (``collavo/search.py``).

A reply does not depend on what else is asked: a prefix and a prompt's end run alone, and a block always has the same
number of rows, so that every product is summed up in an order that only the question itself decides. On the CPU that
takes one thread: several cut tensors at places that depend on the row. Several processes use several cores better.

A prefix belongs to pixels, object list and weights: it is keyed by the image's bytes and the prefix's token ids, and
lives in an engine, which has one set of weights.

Shape legend: Q questions of a block, B beams, R rows of a block, T tokens of a prompt's end, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from modeling.internlm2 import CACHE
from modeling.plora import ImageTokens
from modeling.segmenters.base import DecodedImage, PanopticMap, Segmenter
from modeling.shared_prefix import Prefix, SharedPrefixCache

from .crayon import COCO_BY_INDEX, CrayonPrompt, crayon_prompt, object_list
from .errors import NonFiniteError
from .model import CoLLaVOForConditionalGeneration
from .options import CrayonConfig
from .processing import CoLLaVOProcessor
from .search import Generation, start_search
from .template import IMAGE_TAG, STOP_TAG, Template, reply_text

__all__ = ["Engine", "Generation", "Query", "Reply"]

ROWS = {"cpu": 16, "cuda": 64}
"""Rows of a block, by device: enough that weights are read for many rows at a time; more would delay finished rows. A
part of a run's identity, since the shape of a product can decide its last digits."""

SLOTS = 32
"""A prompt's end gets a multiple of so many places in the cache; prompts with as many places can share a block."""

STEPS_UNSEEN = {"cpu": 1, "cuda": 8}
"""Decoding steps between two looks whether all replies have ended; a look waits for the device."""

CRAYONS_KEPT = 256
PREFIX_BYTES = 4 * 2**30
"""Memory for prefixes of images whose questions are answered together; one image's prefix may be larger."""


MapWatcher = Callable[[str, PanopticMap, CrayonPrompt], None]


@dataclass(frozen=True)
class Query:
    """A question.

    Attributes:
        image: the image that it is about, already at the model's size; None for a text-only question.
        question: the user's text, without object list and template; an ``<image>`` in it is left out.
    """

    image: DecodedImage | None
    question: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer.

    Attributes:
        text: what was generated, up to the end tag.
        prompt: the whole prompt that was asked, object list and template included.
        num_tokens: tokens generated, the end token included.
        finished: whether it ended by itself, rather than at the token limit.
        margin: smallest gap (log-probability; logit in a greedy search) at any decision of the search: how much the
            numbers would have to change before the reply does.
    """

    text: str
    prompt: str
    num_tokens: int
    finished: bool
    margin: float = field(default=float("inf"), compare=False)


@dataclass(frozen=True)
class _Prompt:
    """A question ready to run.

    Attributes:
        index: its place in the call.
        text: the whole prompt.
        image: key and pixels of its image; None for none.
        crayon: of that image.
        stem: token ids of the prefix, one image token per image.
        suffix: token ids of the prompt's end.
    """

    index: int
    text: str
    key: bytes
    image: DecodedImage | None
    crayon: CrayonPrompt | None
    stem: tuple[int, ...]
    suffix: list[int]

    @property
    def held(self) -> tuple[bytes, tuple[int, ...]]:
        """What its prefix is known by."""
        return self.key, self.stem

    @property
    def slots(self) -> int:
        """Places that the prompt's end gets in a block's cache; decided by the prompt alone."""
        return -(-len(self.suffix) // SLOTS) * SLOTS


class Engine:
    """Answers questions with a model, a processor and a segmenter.

    Args:
        model: in evaluation mode, on its device.
        processor: tokenizer and image normalisation.
        segmenter: gives the panoptic maps.
        template: the wrapper of the conversation.
        identity: of the weights and settings; a part of a run's identity.
        crayon: what the model is told of an image's objects.

    Attributes:
        on_map: called with every image's name, panoptic map and crayon prompt when they are made; None for nobody.
    """

    def __init__(
        self,
        model: CoLLaVOForConditionalGeneration,
        processor: CoLLaVOProcessor,
        segmenter: Segmenter,
        template: Template,
        identity: str = "",
        crayon: CrayonConfig | None = None,
    ) -> None:
        self.model, self.processor, self.segmenter, self.template = model, processor, segmenter, template
        self.fingerprint = identity
        self.crayon = crayon or CrayonConfig()
        self.on_map: MapWatcher | None = None
        self._crayons: OrderedDict[bytes, CrayonPrompt] = OrderedDict()
        self._prefixes: dict[tuple[bytes, tuple[int, ...]], Prefix] = {}
        stop = processor.tokenizer.convert_tokens_to_ids(STOP_TAG)
        eos = model.config.text.eos_token_id
        self.end_ids = sorted({*(eos if isinstance(eos, list) else [eos]), stop} - {None, processor.unknown_id})

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images it takes."""
        return self.processor.image_size

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
        with _one_thread(self.model.device):
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
            blocks = list(_blocks(window, self._rows(generation) // generation.num_beams))
            for number, block in enumerate(blocks):
                replies |= self._answer_block(block, generation)
                later = {prompt.held for other in blocks[number + 1 :] for prompt in other}
                last = {prompt.held for prompt in block}  # the next call may go on with these
                self._prefixes = {held: p for held, p in self._prefixes.items() if held in later or held in last}
        return replies

    def forget(self) -> None:
        """Drop what is kept of images seen before."""
        self._prefixes.clear()
        self._crayons.clear()

    def _rows(self, generation: Generation) -> int:
        """Rows of a block: those of the device, or as many more as one question's beams need."""
        rows = ROWS.get(self.model.device.type, ROWS["cuda"])
        return -(-generation.num_beams // rows) * rows

    def _windows(self, queries: Sequence[Query]) -> Iterator[list[_Prompt]]:
        """Questions that are answered together, in order: as many as their prefixes leave memory for."""
        window: list[_Prompt] = []
        for index, query in enumerate(queries):
            prompt = self._prompt(index, query)
            held = {other.held for other in (*window, prompt)}
            if window and sum(self._prefix_bytes(stem) for _, stem in held) > PREFIX_BYTES:
                yield window
                window = []
            window.append(prompt)
        if window:
            yield window

    def _prefix_bytes(self, stem: Sequence[int]) -> int:
        text = self.model.config.text
        tokens = len(stem) + (self.processor.grid**2 - 1) * list(stem).count(self.model.config.image_token_id)
        width = text.num_key_value_heads * text.head_dim
        return int(2 * text.num_hidden_layers * tokens * width * self.model.dtype.itemsize)

    def _prompt(self, index: int, query: Query) -> _Prompt:
        """Segment the image, and cut the prompt into the prefix that it shares with others and its own end."""
        key = _key(query.image)
        crayon = None if query.image is None else self._crayon(key, query.image)
        question = query.question.replace(IMAGE_TAG, "")  # the image has its place; a second one would have no pixels
        objects = None if crayon is None else object_list(crayon.objects)
        before, after = self.template.parts(objects, question, with_objects=self.crayon.object_list)
        ids = self.processor.encode([before + after])[0]
        stem = self.processor.encode([before.rstrip()])[0][:-1]  # the last token could merge with the question's first
        if ids[: len(stem)] != stem:
            stem = ids[: ids.index(self.model.config.image_token_id) + 1] if crayon is not None else ids[:1]
        return _Prompt(index, before + after, key, query.image, crayon, tuple(stem), ids[len(stem) :])

    def _crayon(self, key: bytes, image: DecodedImage) -> CrayonPrompt:
        """The crayon prompt of an image; segmented one at a time, so that no map depends on another."""
        if key not in self._crayons:
            grid = self.processor.grid
            side = grid * self.crayon.map_scale
            panoptic: PanopticMap = self.segmenter.segment([image], (side, side))[0]
            categories = getattr(self.segmenter, "categories", COCO_BY_INDEX)  # of an open vocabulary
            self._crayons[key] = crayon_prompt(panoptic, grid, categories)
            if self.on_map is not None:
                self.on_map(image.name, panoptic, self._crayons[key])
        self._crayons.move_to_end(key)
        while len(self._crayons) > CRAYONS_KEPT:
            self._crayons.popitem(last=False)
        return self._crayons[key]

    def _prefix(self, prompt: _Prompt) -> Prefix:
        if prompt.held not in self._prefixes:
            self._prefixes[prompt.held] = self._run_prefix(prompt)
        return self._prefixes[prompt.held]

    def _run_prefix(self, prompt: _Prompt) -> Prefix:
        """Run one prefix through the decoder, alone."""
        features, semantic, numbering = None, None, None
        if prompt.image is not None and prompt.crayon is not None:
            pixels = self.processor.pixel_values(prompt.image.pixels[None])
            features = self.model.encode_images(pixels.to(self.model.device, self.model.dtype))
            semantic, numbering = prompt.crayon.semantic, prompt.crayon.numbering
        embeds, image = self.model.embed_prompt(prompt.stem, features, semantic, numbering)
        cache = DynamicCache(config=self.model.config.text)
        self._decoder(embeds, 0, cache, image)
        return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))

    def _decoder(
        self,
        embeds: Tensor,
        position: int | Tensor,
        cache: DynamicCache | SharedPrefixCache,
        image: ImageTokens | None = None,
    ) -> Tensor:
        """Logits (rows, V), float32, of the last tokens, for embeddings (rows, T, D) from a position on."""
        positions = torch.arange(embeds.shape[1], device=embeds.device) + position  # (T,) or (rows, T)
        out = self.model(
            inputs_embeds=embeds,
            position_ids=positions.expand(len(embeds), -1),
            image=image,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: cache},
        )
        return out.logits[:, -1].float()  # type: ignore[no-any-return]

    def _answer_block(self, block: Sequence[_Prompt], generation: Generation) -> dict[int, Reply | None]:
        """Answer a block's questions; see `_answer`."""
        beams, rows = generation.num_beams, self._rows(generation)
        prefixes = [self._prefix(prompt) for prompt in block]
        cache = SharedPrefixCache(
            prefixes,
            num_rows=rows,
            num_beams=beams,
            prompt_slots=block[0].slots,
            new_slots=generation.max_new_tokens,
        )
        logits = self._read_prompts(block, cache)
        device, live = logits.device, len(block) * beams
        search = start_search(generation, [prompt.index for prompt in block], self.end_ids, device)
        tokens, parents = search.advance(logits)
        ends = [prefix.length + len(prompt.suffix) for prefix, prompt in zip(prefixes, block, strict=True)]
        positions = torch.zeros(rows, dtype=torch.long)
        positions[:live] = torch.tensor(ends).repeat_interleave(beams)
        positions = positions.to(device)
        token_rows = torch.zeros(rows, dtype=torch.long, device=device)
        parent_rows = torch.arange(rows, device=device)
        first_rows = torch.arange(len(block), device=device)[:, None] * beams
        look = STEPS_UNSEEN.get(device.type, STEPS_UNSEEN["cuda"])
        for step in range(generation.max_new_tokens - 1):
            if step % look == 0 and bool(search.done().all()):
                break
            token_rows[:live] = tokens.flatten()
            if beams > 1:
                parent_rows[:live] = (parents + first_rows).flatten()
                cache.reorder(parent_rows, step)
            cache.decode(step)
            embeds = self.model.get_input_embeddings()(token_rows)[:, None]
            logits = self._decoder(embeds, (positions + step)[:, None], cache)[:live]
            tokens, parents = search.advance(logits.view(len(block), beams, -1))
        found = zip(block, search.sequences().tolist(), search.finite.tolist(), search.margin.tolist(), strict=True)
        return {
            prompt.index: self.reply(prompt.text, ids, margin) if finite else None
            for prompt, ids, finite, margin in found
        }

    def _read_prompts(self, block: Sequence[_Prompt], cache: SharedPrefixCache) -> Tensor:
        """Run the ends of the prompts, each alone; logits (Q, 1, V) of the last tokens."""
        rows = []
        for number, prompt in enumerate(block):
            cache.read_prompt(number, len(prompt.suffix))
            ids = torch.tensor([prompt.suffix], device=self.model.device)
            embeds = self.model.get_input_embeddings()(ids)
            rows.append(self._decoder(embeds, cache.prefixes[number].length, cache))
        return torch.stack(rows)

    def reply(self, prompt: str, new_ids: list[int], margin: float = float("inf")) -> Reply:
        """Turn generated ids into a reply: cut at the first end token."""
        ends = [index for index, token in enumerate(new_ids) if token in self.end_ids]
        kept = new_ids[: ends[0]] if ends else new_ids
        text = reply_text(self.processor.decode(kept))
        return Reply(text=text, prompt=prompt, num_tokens=len(kept) + bool(ends), finished=bool(ends), margin=margin)


def non_finite(dtype: torch.dtype) -> str:
    """Why a question has no answer whose scores are not finite, and what to try.

    Args:
        dtype: the model's compute type.
    """
    advice = "a weight of the checkpoint may be damaged or far too large"
    if dtype == torch.float16:
        advice = f"values beyond 65504 overflow in fp16: try LLM.DTYPE bf16 or fp32; or {advice}"
    return f"the model's scores are not finite (NaN or infinity), so it has no answer; {advice}"


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Compute on one thread, on the CPU; see the top of the file."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _blocks(window: Sequence[_Prompt], size: int) -> Iterator[list[_Prompt]]:
    """Cut a window into blocks: prompts with equal places in the cache, those of an image side by side."""
    images = {held: order for order, held in reversed(list(enumerate(prompt.held for prompt in window)))}
    for slots in sorted({prompt.slots for prompt in window}):
        alike = sorted((p for p in window if p.slots == slots), key=lambda p: (images[p.held], p.index))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _key(image: DecodedImage | None) -> bytes:
    """Identity of an image: its pixels, and its name (which some segmenters look maps up by)."""
    if image is None:
        return b""
    pixels = np.ascontiguousarray(image.pixels)
    return hashlib.sha256(repr((image.name, pixels.shape)).encode() + pixels.tobytes()).digest()
