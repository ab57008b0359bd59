"""The generation engine: questions about pictures in, replies out, with nothing computed twice.

A picture is segmented once and its prompt prefix (system text, 1,225 image tokens, object list) is run through the
decoder once, however many questions and beams follow: questions about it start from a copy of that cache. Replies do
not depend on what else is in a batch (see ``collavo/ties.py``).

A cached prefix belongs to pixels, object list and weights: it is keyed by the picture's bytes and the prefix's token
ids, and lives in an engine, which has one set of weights.

Shape legend: B questions, K beams, P prefix tokens, S suffix tokens, all merged (an image token counts 1,225 times).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.cache_utils import DynamicCache

from modeling.internlm2 import CACHE
from modeling.segmenters.base import PanopticMap, Picture, Segmenter

from .crayon import COCO_BY_INDEX, CrayonPrompt, crayon_prompt, object_list
from .errors import NonFiniteError
from .model import CoLLaVOForConditionalGeneration
from .options import CrayonConfig
from .processing import CoLLaVOProcessor
from .template import IMAGE_TAG, STOP_TAG, Template, reply_text
from .ties import MarginTracker

TIE_MARGIN = {torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Default margins (log-probability) under which a question is asked again alone, by compute type: some ten times the
rounding seen there. In float32 that makes replies equal for any batch; in half precision rounding can exceed it."""


@dataclass(frozen=True)
class Query:
    """A question.

    Attributes:
        picture: what it is about, already at the model's image size; None for a text-only question.
        question: the user's text, without object list and template; an ``<image>`` in it is left out.
    """

    picture: Picture | None
    question: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How to search.

    Attributes:
        num_beams: beams; 1 is greedy.
        max_new_tokens: longest reply in tokens.
    """

    num_beams: int
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer.

    Attributes:
        text: what was generated, up to the end tag.
        prompt: the whole prompt that was asked, object list and template included.
        num_tokens: tokens generated, the end token included.
        finished: whether it ended by itself, rather than at the token limit.
    """

    text: str
    prompt: str
    num_tokens: int
    finished: bool


@dataclass(frozen=True)
class _Prefix:
    """Decoder state after a prompt's prefix: ids (P,), and per layer keys and values (1, heads, P, width)."""

    ids: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class _Prompt:
    """A question ready to run: its prefix and what follows it."""

    text: str
    prefix: _Prefix
    suffix: list[int]


class Engine:
    """Answers questions with a model, a processor and a segmenter.

    Args:
        model: in evaluation mode, on its device.
        processor: tokenizer and picture normalisation.
        segmenter: gives the panoptic maps.
        template: the wrapper of the conversation.
        identity: of the weights and settings; a part of a run's identity.
        crayon: what the model is told of a picture's objects.
        tie_margin: see ``collavo/ties.py``; None for the default of the model's type, 0 to never ask again.
    """

    def __init__(
        self,
        model: CoLLaVOForConditionalGeneration,
        processor: CoLLaVOProcessor,
        segmenter: Segmenter,
        template: Template,
        identity: str = "",
        tie_margin: float | None = None,
        crayon: CrayonConfig | None = None,
    ) -> None:
        self.model, self.processor, self.segmenter, self.template = model, processor, segmenter, template
        self.fingerprint = identity
        self.crayon = crayon or CrayonConfig()
        self.tie_margin = TIE_MARGIN[model.dtype] if tie_margin is None else tie_margin
        self._crayons: dict[bytes, CrayonPrompt] = {}
        self._prefixes: OrderedDict[tuple[bytes, tuple[int, ...]], _Prefix] = OrderedDict()
        stop = processor.tokenizer.convert_tokens_to_ids(STOP_TAG)
        eos = model.config.text.eos_token_id
        self.end_ids = sorted({*(eos if isinstance(eos, list) else [eos]), stop} - {None, processor.unknown_id})

    @property
    def image_size(self) -> int:
        """Side in pixels of the square pictures it takes."""
        return self.processor.image_size

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
        """Answer questions, in one batch.

        Args:
            queries: any mix of pictures, repeated pictures and none.
            generation: how to search.
        Returns: one reply each, in order; the same whatever else is in the batch.

        Raises:
            NonFiniteError: the model's scores for some of them are NaN or infinite; it holds the other replies.
        """
        prompts = self._prompts(queries)
        found = self._generate(prompts, generation)
        if len(prompts) > 1:
            again = [reply is None or margin < self.tie_margin for reply, margin in found]
            for index in [index for index, needed in enumerate(again) if needed]:
                found[index] = self._generate([prompts[index]], generation)[0]
        replies = [reply for reply, _ in found]
        whole = [reply for reply in replies if reply is not None]
        if len(whole) < len(replies):
            raise NonFiniteError(non_finite(self.model.dtype), replies)
        return whole

    def _prompts(self, queries: Sequence[Query]) -> list[_Prompt]:
        """Segment, build the crayon prompts, and run each distinct prefix once."""
        keys = [_key(query.picture) for query in queries]
        self._segment({k: q.picture for k, q in zip(keys, queries, strict=True) if q.picture is not None})
        prompts = [self._prompt(key, query) for key, query in zip(keys, queries, strict=True)]
        needed = {(key, tuple(prompt.prefix.ids.tolist())) for key, prompt in zip(keys, prompts, strict=True)}
        for stale in [held for held in self._prefixes if held not in needed]:
            del self._prefixes[stale]
        return prompts

    def _segment(self, pictures: dict[bytes, Picture]) -> None:
        """Compute the crayon prompts of pictures not seen before; one at a time, so that no map depends on another."""
        grid = self.processor.grid
        side = grid * self.crayon.map_scale
        for key, picture in pictures.items():
            if key not in self._crayons:
                panoptic: PanopticMap = self.segmenter.segment([picture], (side, side))[0]
                categories = getattr(self.segmenter, "categories", COCO_BY_INDEX)  # of an open vocabulary
                self._crayons[key] = crayon_prompt(panoptic, grid, categories)

    def _prompt(self, key: bytes, query: Query) -> _Prompt:
        crayon = self._crayons[key] if query.picture is not None else None
        question = query.question.replace(IMAGE_TAG, "")  # the picture has its place; a second one would have no pixels
        objects = None if crayon is None else object_list(crayon.objects)
        before, after = self.template.parts(objects, question, told=self.crayon.object_list)
        ids = self.processor.encode([before + after])[0]
        stem = self.processor.encode([before.rstrip()])[0][:-1]  # the last token could merge with the question's first
        if ids[: len(stem)] != stem:
            stem = ids[: ids.index(self.model.config.image_token_id) + 1] if crayon is not None else ids[:1]
        held = (key, tuple(stem))
        if held not in self._prefixes:
            self._prefixes[held] = self._run_prefix(stem, query.picture, crayon)
        return _Prompt(before + after, self._prefixes[held], ids[len(stem) :])

    def _run_prefix(self, ids: list[int], picture: Picture | None, crayon: CrayonPrompt | None) -> _Prefix:
        """Run one prefix through the decoder, alone."""
        device = self.model.device
        input_ids = torch.tensor([ids], device=device)
        cache = DynamicCache(config=self.model.config.text)
        inputs: dict[str, Tensor] = {}
        if picture is not None and crayon is not None:
            pixels = self.processor.pixel_values(picture.pixels[None]).to(device, self.model.dtype)
            inputs["image_features"] = self.model.encode_images(pixels)
            inputs["semantic"] = torch.from_numpy(crayon.semantic.reshape(1, -1)).to(device)
            inputs["numbering"] = torch.from_numpy(crayon.numbering.reshape(1, -1)).to(device)
        self.model(input_ids=input_ids, cache=cache, use_cache=True, logits_to_keep=1, **inputs)
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        return _Prefix(torch.tensor(ids), layers)

    def _generate(self, prompts: Sequence[_Prompt], generation: Generation) -> list[tuple[Reply | None, float]]:
        """Run the suffixes and the search from copies of the prefixes.

        Returns: per question the reply, None where the search met scores that are not finite, and its margin.
        """
        ids, mask, cache = self._join(prompts)
        past = cache.get_seq_length()
        if ids.shape[1] - 1 > past:  # all but the last token once per question, not once per beam
            new = slice(past, ids.shape[1] - 1)
            self.model(
                input_ids=ids[:, new],
                attention_mask=mask[:, : new.stop],
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        if generation.num_beams > 1:
            cache.batch_repeat_interleave(generation.num_beams)
        tracker = MarginTracker(len(prompts), generation.num_beams, ids.shape[1], self.end_ids)
        out = self.model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            remove_invalid_values=False,  # a checkpoint's own setting would hide NaN from the tracker
            num_beams=generation.num_beams,
            num_return_sequences=generation.num_beams,
            max_new_tokens=generation.max_new_tokens,
            eos_token_id=self.end_ids,
            pad_token_id=self.model.config.text.pad_token_id,
            logits_processor=LogitsProcessorList([tracker]),
            return_dict_in_generate=True,
            output_scores=generation.num_beams > 1,
            **{CACHE: cache},
        )
        if generation.num_beams > 1:
            tracker.note_final(out.sequences_scores)
        new_ids = out.sequences[:: generation.num_beams, ids.shape[1] :].tolist()
        replies = [
            self.reply(prompt.text, ids) if finite else None
            for prompt, ids, finite in zip(prompts, new_ids, tracker.finite(), strict=True)
        ]
        return list(zip(replies, tracker.margins.tolist(), strict=True))

    def _join(self, prompts: Sequence[_Prompt]) -> tuple[Tensor, Tensor, DynamicCache]:
        """Lay prompts side by side: ids (B, P + S), mask likewise, and a cache of the prefixes (B rows of P tokens).

        Prefixes are padded on their left, suffixes on theirs; the mask tells both paddings.
        """
        device, pad = self.model.device, self.model.config.text.pad_token_id or 0
        lengths = [prompt.prefix.layers[0][0].shape[-2] for prompt in prompts]
        width, tail = max(lengths), max(len(prompt.suffix) for prompt in prompts)
        ids = torch.full((len(prompts), width + tail), pad)
        mask = torch.zeros_like(ids)
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            mask[row, width - length : width] = 1
            ids[row, width + tail - len(prompt.suffix) :] = torch.tensor(prompt.suffix)
            mask[row, width + tail - len(prompt.suffix) :] = 1
        cache = DynamicCache(config=self.model.config.text)
        for index in range(len(prompts[0].prefix.layers)):
            keys = [_pad_left(prompt.prefix.layers[index][0], width) for prompt in prompts]
            values = [_pad_left(prompt.prefix.layers[index][1], width) for prompt in prompts]
            cache.update(torch.cat(keys), torch.cat(values), index)
        return ids.to(device), mask.to(device), cache

    def reply(self, prompt: str, new_ids: list[int]) -> Reply:
        """Turn generated ids into a reply: cut at the first end token."""
        ends = [index for index, token in enumerate(new_ids) if token in self.end_ids]
        kept = new_ids[: ends[0]] if ends else new_ids
        text = reply_text(self.processor.decode(kept))
        return Reply(text=text, prompt=prompt, num_tokens=len(kept) + bool(ends), finished=bool(ends))


def non_finite(dtype: torch.dtype) -> str:
    """Why a question has no answer whose scores are not finite, and what to try.

    Args:
        dtype: the model's compute type.
    """
    advice = "a weight of the checkpoint may be NaN or infinite"
    if dtype == torch.float16:
        advice = f"values beyond 65504 overflow in fp16: try LLM.DTYPE bf16 or fp32; or {advice}"
    return f"the model's scores are not finite (NaN or infinity), so it has no answer; {advice}"


def _pad_left(states: Tensor, length: int) -> Tensor:
    """Pad cached keys or values (1, heads, P, width) with zeros to ``length`` tokens."""
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[-2], 0))


def _key(picture: Picture | None) -> bytes:
    """Identity of a picture: its pixels, and its name (which some segmenters look maps up by)."""
    if picture is None:
        return b""
    pixels = np.ascontiguousarray(picture.pixels)
    return hashlib.sha256(repr((picture.name, pixels.shape)).encode() + pixels.tobytes()).digest()
