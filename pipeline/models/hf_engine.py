"""Asks a model of the transformers library: prompt, batch, generate, decode; every step as its profile says.

- A prompt is tokenised by the processor's own chat template, once, with its begin token once; or by the profile's
  template where a checkpoint has none.
- Each question's inputs are prepared alone. Those whose image tensors have equal shapes run together, with the prompts
  padded on the left and masked, so that a reply does not depend on what else is asked.
- What questions of an image have in common runs once for all of them where the model allows it (``hf_prefix.py``).
- Generation settings of a checkpoint (sampling, penalties) count only where the profile keeps them; its end tokens
  always do.
- What fails is never a reply: a batch that does not fit in memory is halved, and a question that fails alone is named.

Shape legend: B questions of a batch, T tokens.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from collavo.engine import Generation, Query, Reply
from collavo.images import PreparedImage
from configs.common.memory_errors import is_out_of_memory
from configs.common.words import quoted
from datasets.types import ImageSource
from modeling.image import DecodedImage

from ..base import NoReply
from ..runtime.console import warn
from .hf_inputs import RIGHT, PreparedQuestion, padded
from .hf_prefix import Generated, PrefixReuse, SharedPrefixes
from .images import ModelImage, PlacedImages, images_of, place_images, read_images
from .profile import ModelProfile

_TAG = re.compile(r"<(?:loc_?|bin_)?\d{1,4}>")
_LONG_TEXT = 1000
_STRUCTURE = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
"""What a checkpoint's generation settings say of its tokens, rather than of how to choose among them."""
_UNFIT = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError)
"""What a model may raise about some inputs and not about others."""
_LASTING = ("device-side assert", "cuda error", "cublas", "cudnn")
"""Words of errors after which a device answers nothing any more."""
_MASKS = ("mask", "token_type_ids")


class _Watch(LogitsProcessor):
    """Remembers which rows had scores that are NaN or infinite, and the first ones; read at the end alone."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.first = torch.zeros(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the library; scores, (rows, vocabulary), are returned as they are."""
        bad = ~(scores < float("inf")).all(dim=-1)
        if self.rows is None:
            self.first = scores.clone()
        self.rows = bad if self.rows is None else self.rows | bad
        return scores


class TransformersEngine:
    """A model with its processor, see `pipeline.base.Answerer`.

    Args:
        model: of the transformers library, in evaluation mode.
        processor: its own; of a checkpoint without one, its tokenizer.
        profile: of the model's family.
        remark: is given what a user may want to know while questions are answered; None for nobody.
    """

    image_size = None

    def __init__(
        self, model: Any, processor: Any, profile: ModelProfile, remark: Callable[[str], object] | None = None
    ) -> None:
        self.model, self.processor, self.profile, self._remark = model, processor, profile, remark
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.tokenizer.padding_side = "left"
        self._settings = neutral_settings(model, self.tokenizer, profile.generation.keep)
        for module in model.modules():
            if getattr(module, "generation_config", None) is not None:
                module.generation_config = GenerationConfig(**_tokens_of(self._settings))
        self.prefixes = PrefixReuse(model, profile, _tokens_of(self._settings), self.collated)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def described(self) -> str:
        """How it is asked, in words."""
        together = "together where their images have equal shapes" if self.profile.batch == "together" else "alone"
        return (
            f"{type(self.model).__name__} with {type(self.processor).__name__} and "
            f"{type(getattr(self.processor, 'image_processor', None)).__name__}; end tokens {self.end_tokens}; "
            f"questions run {together}; {self._reuse()}"
        )

    def _reuse(self) -> str:
        if reason := self.prefixes.refused:
            return f"an image's prefix is not reused over its questions: {reason}"
        within = f" of up to {window} tokens" if (window := self.prefixes.window) else ""
        return f"an image's prefix is reused over its questions{within}, if their first replies are equal without it"

    @property
    def end_tokens(self) -> list[int]:
        """Ids of the tokens that end a reply."""
        return list(self._settings["eos_token_id"])

    def notes(self) -> Iterator[str]:
        """What a user should know of the loaded checkpoint."""
        classes, kind = self.profile.classes, type(self.model).__name__
        if classes and kind not in classes:
            yield f"the checkpoint is a {kind}; the profile is of {', '.join(classes)}"
        if self.profile.rendered and not self.profile.prompt.template:
            made = self.render("{question}", 1)
            if made != self.profile.rendered:
                yield (
                    "the checkpoint's chat template differs from the one that its authors published "
                    f"({self.profile.rendered_source}): {quoted(made, _LONG_TEXT)} instead of "
                    f"{quoted(self.profile.rendered, _LONG_TEXT)}"
                )

    def read_image(self, source: ImageSource) -> DecodedImage:
        """See `pipeline.base.ImageReader`."""
        return read_images(source, several=self.profile.images == "several", model=self.profile.title or "the model")

    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply | NoReply]:
        """Answer questions, in order."""
        results: list[Reply | NoReply | None] = [None] * len(queries)
        groups: dict[Any, list[PreparedQuestion]] = {}
        for index, query in enumerate(queries):
            try:
                prepared = self.prepare(index, query)
                self._check_length(prepared, generation.max_new_tokens)
            except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
                results[index] = NoReply(
                    outcome="failed", reason=f"the processor refuses: {type(error).__name__}: {error}"
                )
                continue
            alone = self.profile.batch == "alone" or generation.temperature > 0
            groups.setdefault(index if alone else prepared.shape, []).append(prepared)
        for group in groups.values():
            for prepared, result in self._halving(group, generation):
                results[prepared.index] = result
        return [result for result in results if result is not None]

    def prepare(self, index: int, query: Query) -> PreparedQuestion:
        """Word, tokenise and process one question.

        Raises:
            ValueError: the processor refuses it.
        """
        images = [self._image(image) for image in images_of(query.image)]
        if not images and self._needs_image:
            raise ValueError("the model takes no question without an image")
        placed = self._placed(query.question, len(images))
        if self.profile.prompt.template:
            prompt = self._filled(placed, self._paths(query.image))
            inputs = self._processed(prompt, [images[number] for number in _order(placed)])
        else:
            prompt = self._chat(placed)
            inputs = self._templated(placed, images)
        tensors = {name: torch.as_tensor(value) for name, value in inputs.items() if value is not None}
        tensors.pop("labels", None)
        return PreparedQuestion.of(index, prompt, tensors)

    def _check_length(self, prepared: PreparedQuestion, new_tokens: int) -> None:
        """Refuse what a model has no positions for; it would fail, on a GPU for good, or reply at random.

        Raises:
            ValueError: the prompt with its reply, or a Q-Former's text, is too long.
        """
        config = self.model.config
        text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
        lengths = {"input_ids": (text, new_tokens), "qformer_input_ids": (getattr(config, "qformer_config", None), 0)}
        for name, (part, more) in lengths.items():
            most = getattr(part, "max_position_embeddings", None)
            length = prepared.inputs[name].shape[1] + more if name in prepared.inputs else 0
            if isinstance(most, int) and length > most:
                of = f" with {more} of its reply" if more else ""
                raise ValueError(f"the prompt has {length} tokens{of} ({name}), and the model takes {most}")

    @functools.cached_property
    def _needs_image(self) -> bool:
        """Whether ``generate`` cannot go without pixels."""
        pixels = inspect.signature(self.model.generate).parameters.get("pixel_values")
        return pixels is not None and pixels.default is inspect.Parameter.empty

    def _placed(self, question: str, images: int) -> PlacedImages:
        """A question with its images; without what the processor would take for the place of another one."""
        token = self._image_token()
        placed = (
            place_images(question, images) if self._keeps_order else PlacedImages(tuple(range(images)), (question,))
        )
        pieces = (p.replace(token, "") if isinstance(p, str) and token else p for p in placed.pieces)
        return PlacedImages(placed.apart, tuple(pieces))

    @functools.cached_property
    def _keeps_order(self) -> bool:
        """Whether a prompt can have an image between two texts; some templates put all images first."""
        prompt = self.profile.prompt
        if prompt.template:
            return bool(prompt.text_only)  # else the template alone knows the place
        made = self._chat(PlacedImages((), ("before", 0, "after")))
        between = re.search(r"before(.*)after", made, re.DOTALL)
        return between is not None and bool(between[1].strip())

    def _image_token(self) -> str:
        token = getattr(self.processor, "image_token", None)
        return str(getattr(token, "content", token) or "")

    def _image(self, image: DecodedImage) -> Image.Image:
        """An image as the processor gets it."""
        found = Image.fromarray(image.pixels)
        if not self.profile.pad_to_square or found.width == found.height:
            return found
        mean = getattr(getattr(self.processor, "image_processor", None), "image_mean", None) or (0.0, 0.0, 0.0)
        side = max(found.size)
        square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
        square.paste(found, ((side - found.width) // 2, (side - found.height) // 2))
        return square

    def render(self, question: str, images: int) -> str:
        """The whole prompt as text, before the processor widens images into their tokens.

        Args:
            question: the user's text.
            images: how many there are.
        """
        placed = self._placed(question, images)
        return self._filled(placed, ()) if self.profile.prompt.template else self._chat(placed)

    def _chat(self, placed: PlacedImages) -> str:
        """The prompt by the processor's chat template."""
        images = [None] * len(_order(placed))
        text: str = self.processor.apply_chat_template(
            self._messages(placed, images), add_generation_prompt=True, tokenize=False
        )
        return text

    def _filled(self, placed: PlacedImages, paths: Sequence[str]) -> str:
        """The prompt by the profile's own template.

        Args:
            placed: see `PlacedImages`.
            paths: of the images' files, for a template that names them.
        """
        prompt, several = self.profile.prompt, len(_order(placed)) > 1
        place = prompt.image or self._image_token()

        def image(number: int) -> str:
            return place.replace("{path}", paths[number] if paths else "").replace("{number}", str(number + 1))

        labels = (prompt.several.format(number=number + 1) if several else "" for number in placed.apart)
        apart = "".join(label + image(number) for label, number in zip(labels, placed.apart, strict=True))
        question = "".join(image(piece) if isinstance(piece, int) else piece for piece in placed.pieces)
        template = prompt.template if placed.apart or not prompt.text_only else prompt.text_only
        return template.format(image=apart, question=question, system=prompt.system or "")

    def _messages(self, placed: PlacedImages, images: Sequence[Image.Image | None]) -> list[dict[str, Any]]:
        """A conversation as chat templates take it.

        Args:
            placed: see `PlacedImages`.
            images: by number; None where the prompt is wanted as text.
        """
        prompt = self.profile.prompt

        def part(piece: str | int) -> dict[str, Any]:
            if isinstance(piece, str):
                return {"type": "text", "text": piece}
            image = images[piece]
            return {"type": "image"} if image is None else {"type": "image", "image": image}

        places: list[dict[str, Any]] = []
        for number in placed.apart:
            if prompt.several and len(images) > 1:
                places.append({"type": "text", "text": prompt.several.format(number=number + 1)})
            places.append(part(number))
        text = [part(piece) for piece in placed.pieces]
        content = [*places, *text] if prompt.image_place == "before" else [*text, *places]
        asked = {"role": "user", "content": content}
        if prompt.system is None:
            return [asked]
        return [{"role": "system", "content": [{"type": "text", "text": prompt.system}]}, asked]

    def _templated(self, placed: PlacedImages, images: Sequence[Image.Image]) -> Mapping[str, Any]:
        """Inputs by the processor's chat template, which begins a prompt once."""
        if getattr(self.processor, "chat_template", None) is None and self.tokenizer.chat_template is None:
            raise ValueError("the checkpoint has no chat template, and its profile none of its own (prompt.template)")
        found: Mapping[str, Any] = self.processor.apply_chat_template(
            self._messages(placed, images),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"images_kwargs": dict(self.profile.image_processor)} if images else None,
        )
        return found

    def _processed(self, prompt: str, images: Sequence[Image.Image]) -> Mapping[str, Any]:
        """Inputs by the profile's own template."""
        if self.processor is self.tokenizer:
            plain: Mapping[str, Any] = self.tokenizer(prompt, return_tensors="pt")
            return plain
        given = {"images": list(images), "images_kwargs": dict(self.profile.image_processor)} if images else {}
        found: Mapping[str, Any] = self.processor(text=prompt, return_tensors="pt", **given)
        return found

    def _paths(self, image: DecodedImage | PreparedImage | None) -> list[str]:
        """Files of the images, for a model that reads them itself."""
        if "{path}" not in self.profile.prompt.image:
            return []
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="collavo-images-")
        paths = []
        for one in images_of(image):
            encoded = one.encoded if isinstance(one, ModelImage) else b""
            name = hashlib.sha256(encoded or one.pixels.tobytes()).hexdigest()[:32]
            path = Path(self._folder.name) / f"{name}.png"
            if not path.is_file():
                Image.fromarray(one.pixels).save(path)
            paths.append(str(path))
        return paths

    def _halving(
        self, group: Sequence[PreparedQuestion], generation: Generation
    ) -> list[tuple[PreparedQuestion, Reply | NoReply]]:
        """Answer questions together, or in halves where memory does not suffice for all, or one of them is at fault.

        Raises:
            RuntimeError: the device can do nothing more.
        """
        try:
            return list(zip(group, self._together(group, generation), strict=True))
        except (*_UNFIT, MemoryError) as error:
            said = next(iter(str(error).strip().splitlines()), "")
            if is_out_of_memory(error):
                reason = f"out of memory: {said or 'alone'}"
            elif any(words in said.lower() for words in _LASTING):
                raise
            else:
                reason = f"the model fails: {type(error).__name__}: {said}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(group) == 1:
            return [(group[0], NoReply(outcome="failed", reason=reason))]
        half = len(group) // 2
        return [*self._halving(group[:half], generation), *self._halving(group[half:], generation)]

    @torch.inference_mode()
    def _together(self, group: Sequence[PreparedQuestion], generation: Generation) -> list[Reply | NoReply]:
        """Generate replies of questions with equal shapes."""
        shared = self.prefixes.shared(group, generation.max_new_tokens)
        if shared is None:
            made = self._generated(self.collated(group), group, generation)
        elif self.prefixes.must_compare(shared, generation.num_beams):
            made = self._compared(shared, group, generation)
        else:
            made = self._generated(self.prefixes.inputs(shared, generation.num_beams), group, generation)
        failed = NoReply(outcome="failed", reason="the model's scores are not finite (NaN or infinity)")
        return [
            self._reply(one.prompt, tokens, generation) if finite else failed
            for one, tokens, finite in zip(group, made.tokens, made.finite, strict=True)
        ]

    def _compared(self, shared: SharedPrefixes, group: Sequence[PreparedQuestion], generation: Generation) -> Generated:
        """What questions get without reuse, after a comparison with what they get with it."""
        plain = self._generated(self.collated(group), group, generation)
        first = self.prefixes.untried
        try:
            reused = self._generated(self.prefixes.inputs(shared, generation.num_beams), group, generation)
            self.prefixes.compare(shared, generation.num_beams, plain, reused)
        except _UNFIT as error:
            if is_out_of_memory(error):
                raise
            self.prefixes.refused = f"the model fails with it: {type(error).__name__}: {error}"
        if self.prefixes.refused:
            warn(f"an image's prefix is not reused over its questions any more: {self.prefixes.refused}")
        elif first and self._remark is not None:
            self._remark("  replies of questions that share an image's prefix equal those without its reuse")
        return plain

    def _generated(
        self, inputs: Mapping[str, Any], group: Sequence[PreparedQuestion], generation: Generation
    ) -> Generated:
        """Run ``generate``.

        Args:
            inputs: of the model, of all questions.
            group: the questions.
            generation: how to search.
        """
        watch = _Watch()
        if generation.temperature > 0:  # one question alone: its draws depend on nothing else
            digest = hashlib.sha256(group[0].prompt.encode()).digest()
            torch.manual_seed((generation.seed + int.from_bytes(digest[:6], "big")) % 2**63)
        stop = self.profile.generation.stop
        out: Tensor = self.model.generate(
            **inputs,
            generation_config=GenerationConfig(**self.search_settings(generation)),
            logits_processor=LogitsProcessorList([watch]),
            **({"stop_strings": stop, "tokenizer": self.tokenizer} if stop else {}),
        )
        new = out[:, self._skipped(out, inputs["input_ids"], inputs["input_ids"].shape[1]) :]
        bad = [False] * len(group) if watch.rows is None else watch.rows.view(len(group), -1).any(dim=1).tolist()
        return Generated(new.tolist(), [not one for one in bad], watch.first)

    def _skipped(self, out: Tensor, input_ids: Tensor, length: int) -> int:
        """How many tokens of the output are no reply: the prompt, or a decoder's start."""
        if getattr(self.model.config, "is_encoder_decoder", False) or self._has_encoder:
            return 1
        return length if out.shape[1] >= length and torch.equal(out[:, :length], input_ids) else 0

    @property
    def _has_encoder(self) -> bool:
        text = self.model.config.get_text_config() if hasattr(self.model.config, "get_text_config") else None
        return bool(getattr(text, "is_encoder_decoder", False))

    def search_settings(self, generation: Generation) -> dict[str, Any]:
        """Settings of the library's ``generate``, with nothing of the checkpoint's but what is kept."""
        own = self.profile.generation
        sampled = generation.temperature > 0
        return {
            **self._settings,
            "num_beams": generation.num_beams,
            "max_new_tokens": generation.max_new_tokens,
            "do_sample": sampled,
            **({"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0} if sampled else {}),
            **(
                {"length_penalty": generation.length_penalty, "early_stopping": generation.early_stopping}
                if generation.num_beams > 1
                else {}
            ),
            **({} if own.repetition_penalty is None else {"repetition_penalty": own.repetition_penalty}),
        }

    def collated(self, group: Sequence[PreparedQuestion]) -> dict[str, Tensor]:
        """Inputs of questions with equal shapes as one batch, on the model's device.

        Prompts are padded on the left with tokens that their masks leave out, a Q-Former's text on the right.
        """
        batch: dict[str, Tensor] = {}
        for name, first in group[0].inputs.items():
            values = [one.inputs[name] for one in group]
            if name in group[0].text:
                values = padded(values, self._filler(name), left=not name.startswith(RIGHT))
            joined = torch.cat(values) if first.dim() else torch.stack(values)
            kind = self.model.dtype if joined.is_floating_point() else joined.dtype
            batch[name] = joined.to(self.model.device, kind)
        return batch

    def _filler(self, name: str) -> int:
        if any(mask in name for mask in _MASKS):
            return 0
        tokenizer = self.processor.qformer_tokenizer if name.startswith(RIGHT) else self.tokenizer
        held = tokenizer.pad_token_id
        return int(self._settings["pad_token_id"] if held is None else held)

    def _reply(self, prompt: str, ids: list[int], generation: Generation) -> Reply:
        """Decode what was generated, up to the first end token."""
        ends = set(self.end_tokens)
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        kept = ids if end is None else ids[:end]
        pad = self._settings["pad_token_id"]
        while end is None and kept and kept[-1] == pad:  # a longer reply of the batch went on
            kept = kept[:-1]
        text, cut = self._decoded(kept), False
        for stop in self.profile.generation.stop:
            if stop in text:
                text, cut = text[: text.index(stop)], True
        finished = end is not None or cut or len(kept) < generation.max_new_tokens
        return Reply(text=text.strip(), prompt=prompt, num_tokens=len(kept) + (end is not None), finished=finished)

    def _decoded(self, ids: Sequence[int]) -> str:
        """Text of tokens, without the tokenizer's marks; coordinates that are tokens stay where it has some."""
        if not self.profile.boxes.tags:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        marks = {*self.tokenizer.all_special_ids}
        tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
        kept = [i for i, token in zip(ids, tokens, strict=True) if i not in marks or _TAG.fullmatch(str(token))]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))


def _order(placed: PlacedImages) -> list[int]:
    """Numbers of the images in the order in which they stand in a prompt that has those apart first."""
    return [*placed.apart, *(piece for piece in placed.pieces if isinstance(piece, int))]


def neutral_settings(model: Any, tokenizer: Any, keep: Sequence[str]) -> dict[str, Any]:
    """A checkpoint's generation settings without those that choose among tokens, but for what is to be kept.

    Args:
        model: of the library; of one that consists of several, the language model's tokens count too.
        tokenizer: its end token counts besides those of the settings.
        keep: names of settings that are taken over.
    """
    held = getattr(model, "generation_config", None)
    given = {} if held is None else held.to_dict()
    text = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    found: dict[str, Any] = {}
    for name in _STRUCTURE:
        value = given.get(name)
        value = getattr(text, name, None) if value is None else value
        if value is not None:
            found[name] = value
    ends = found.get("eos_token_id")
    listed = list(ends) if isinstance(ends, (list, tuple)) else [ends]
    found["eos_token_id"] = [int(end) for end in dict.fromkeys([*listed, tokenizer.eos_token_id]) if end is not None]
    if found.get("pad_token_id") is None:
        held_pad = tokenizer.pad_token_id
        found["pad_token_id"] = found["eos_token_id"][0] if held_pad is None else held_pad
    found.update({name: given[name] for name in keep if given.get(name) is not None})
    return found


def _tokens_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in _STRUCTURE}
