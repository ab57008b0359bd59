"""CoLLaVO in one import, as the ecosystem has it: load a checkpoint, ask about images.

from collavo import CoLLaVO

model = CoLLaVO.from_pretrained("/path/to/CoLLaVO", bits=4)
print(model.ask("dog.jpg", "What is the dog doing?"))
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from configs.common.words import did_you_mean, shown
from modeling.image import DecodedImage
from modeling.segmenters import backends, build_segmenter
from modeling.segmenters.base import PanopticMap, Segmenter
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.none import NoSegmenter
from modeling.segmenters.options import SegmenterConfig

from .checkpoint.examine import DescribedCheckpoint, examine_checkpoint
from .checkpoint.location import locate
from .checkpoint.names import is_released_layout, read_json, share_weights
from .checkpoint.settings import ModelSettings, read_recorded, settings_for, write_recorded
from .crayon import CrayonPrompt, object_list
from .engine import Engine, Generation, Query, Reply
from .errors import CheckpointError
from .image_input import ImageInput, decode_image_input
from .load_collavo import engine_identity, load_examined
from .options import CrayonConfig, LLMConfig
from .streaming import Heard, answer_aloud, pieces_of
from .template import IMAGE_TAG

Bits = Literal[4, 8, 16, 32]
DType = Literal["bf16", "fp16", "fp32"]
MAX_NEW_TOKENS = 256
_SUFFIXES = {".pt": "xdecoder", ".pkl": "detectron2", ".pth": "detectron2"}


class CoLLaVO:
    """A model that answers questions about images; made by `from_pretrained`.

    Attributes:
        engine: answers questions with nothing computed twice; the prefix of the last image is kept for further ones.
        settings: how the checkpoint is asked: crayon settings, template, segmenter.
        model: the transformers model itself.
        processor: tokenizer and normalisation.
        segmenter: makes the panoptic maps.
    """

    def __init__(self, engine: Engine, settings: ModelSettings, described: DescribedCheckpoint) -> None:
        self.engine, self.settings, self._described = engine, settings, described
        self.model, self.processor, self.segmenter = engine.model, engine.processor, engine.segmenter
        self._without: Engine | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        bits: Bits = 4,
        dtype: DType | None = None,
        device: str | torch.device | None = None,
        segmenter: str | os.PathLike[str] | SegmenterConfig | Segmenter | None = None,
        crayon: CrayonConfig | None = None,
    ) -> CoLLaVO:
        """Load a checkpoint.

        Args:
            path: directory of the released checkpoint, of one of ours, or of what a training run left.
            bits: 4 (NF4) or 8 through bitsandbytes; 16 or 32 for no quantisation.
            dtype: compute type; None for fp32 with 32 bits and on a CPU that quantises, bf16 with 16 bits on a CPU,
                else fp16.
            device: where it runs; None for a GPU where there is one.
            segmenter: name of a backend (``"none"`` for no crayon prompt), path of its weights, settings, or an object
                that segments; None for the one that the checkpoint names (a released one: Mask2Former).
            crayon: what the model is told of objects; what it leaves open is as the checkpoint says.

        Raises:
            CheckpointError: the checkpoint is unreadable, or names no segmenter and none is given.
            SegmenterError: the segmenter cannot be built.
        """
        folder = locate(os.fspath(path), "path")
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        chosen = segmenter if hasattr(segmenter, "segment") else _segmenter_config(segmenter, folder)
        config = chosen if isinstance(chosen, SegmenterConfig) else SegmenterConfig(NAME="none")
        settings = settings_for(folder, crayon, config)
        examined = examine_checkpoint(folder, settings.template)
        llm = LLMConfig(BITS=bits, DTYPE=dtype or _compute_type(bits, where))
        built = build_segmenter(settings.segmenter, where) if chosen is config else chosen
        identity = engine_identity(
            llm, folder, weight=True, segmenter=getattr(built, "fingerprint", repr(built)), settings=settings
        )
        model = load_examined(llm, examined, where)
        engine = Engine(model, examined.processor, built, settings.template, identity, settings.crayon)  # type: ignore[arg-type]
        return cls(engine, settings, examined.described)

    @overload
    def ask(self, image: ImageInput | None, question: str, **options: Any) -> str: ...

    @overload
    def ask(
        self, image: ImageInput | Sequence[ImageInput | None] | None, question: Sequence[str], **options: Any
    ) -> list[str]: ...

    def ask(
        self,
        image: ImageInput | Sequence[ImageInput | None] | None,
        question: str | Sequence[str],
        *,
        crayon: bool = True,
        **options: Any,
    ) -> str | list[str]:
        """Answer one question, or several together.

        Args:
            image: see `ImageInput`; None for a question without one; a list with one per question.
            question: a question, or a list: all about one image, or one for each of several.
            crayon: False leaves the crayon prompt out.
            **options: ``max_new_tokens``, ``num_beams``, ``temperature``, ``top_p``, ``seed``, see `Generation`.
        Returns: the reply, or a list of replies.

        Raises:
            ImageError: an image cannot be used.
            NonFiniteError: the model's scores are not finite.
            ValueError: an option out of its range, or lists of different lengths.
        """
        replies = self.replies(image, question, crayon=crayon, **options)
        return replies[0].text if isinstance(question, str) else [reply.text for reply in replies]

    def replies(
        self,
        image: ImageInput | Sequence[ImageInput | None] | None,
        question: str | Sequence[str],
        *,
        crayon: bool = True,
        **options: Any,
    ) -> list[Reply]:
        """The same as `ask`, with the prompt and whether the reply ended by itself."""
        images, questions = self._pairs(image, question)
        queries = [Query(image, text) for image, text in zip(images, questions, strict=True)]
        return self._engine(crayon).answer(queries, _generation(options))

    def stream(self, image: ImageInput | None, question: str, *, crayon: bool = True, **options: Any) -> Iterator[str]:
        """The reply to one question piece by piece, as it is generated; see `ask`. The pieces add up to its text."""
        query, generation = Query(self._image(image), question), _generation(options)
        return pieces_of(self._engine(crayon), query, generation)

    def answer_aloud(
        self, image: ImageInput | None, question: str, heard: Heard, *, crayon: bool = True, **options: Any
    ) -> Reply:
        """Answer one question and hand its text over piece by piece; see `ask`.

        Args:
            image: see `ask`.
            question: see `ask`.
            heard: called with every piece.
            crayon: see `ask`.
            **options: see `ask`.
        """
        query = Query(self._image(image), question)
        return answer_aloud(self._engine(crayon), query, _generation(options), heard)

    def panoptic_map(self, image: ImageInput) -> tuple[PanopticMap, CrayonPrompt]:
        """The map of an image as the model is shown it, and the crayon prompt made of it.

        Raises:
            ImageError: the image cannot be used.
            SegmenterError: it cannot be segmented.
        """
        return self.engine.maps([self._square(image)])[0]

    def inputs(
        self, image: ImageInput | Sequence[ImageInput | None] | None, question: str | Sequence[str]
    ) -> dict[str, Tensor]:
        """What the transformers model takes for some questions, on its device: padded ids, pixels, crayon indices."""
        images, questions = self._pairs(image, question)
        seen = [None if image is None else self.engine.maps([image])[0][1] for image in images]
        prompts = [self._prompt(crayon, text) for crayon, text in zip(seen, questions, strict=True)]
        ids, mask = self.processor.pad_left(self.processor.encode(prompts))
        found = {"input_ids": ids, "attention_mask": mask}
        pixels = [image.pixels for image in images if image is not None]
        crayons = [crayon for crayon in seen if crayon is not None]
        if pixels:
            found["pixel_values"] = self.processor.pixel_values(np.stack(pixels)).to(self.model.dtype)
            found["semantic"] = torch.from_numpy(np.stack([c.semantic.reshape(-1) for c in crayons]))
            found["numbering"] = torch.from_numpy(np.stack([c.numbering.reshape(-1) for c in crayons]))
        return {name: tensor.to(self.model.device) for name, tensor in found.items()}

    @overload
    def generate(
        self,
        image: ImageInput | Sequence[ImageInput | None] | None,
        question: str | Sequence[str],
        *,
        return_dict_in_generate: Literal[True],
        **settings: Any,
    ) -> ModelOutput: ...

    @overload
    def generate(
        self, image: ImageInput | Sequence[ImageInput | None] | None, question: str | Sequence[str], **settings: Any
    ) -> list[str]: ...

    def generate(
        self,
        image: ImageInput | Sequence[ImageInput | None] | None,
        question: str | Sequence[str],
        **settings: Any,
    ) -> list[str] | ModelOutput:
        """Answer by transformers' own ``generate``, with any of its settings; `ask` is faster.

        Args:
            image: see `ask`.
            question: see `ask`.
            **settings: see ``transformers.GenerationConfig``; replies end at the template's end tag.
        Returns: a text for every sequence that is generated, question by question. With ``return_dict_in_generate``,
            transformers' output instead (``scores``, ``logits``, ...), whose ``sequences`` begin with ``input_ids`` of
            `inputs`.
        """
        inputs = self.inputs(image, question)
        out = self.model.generate(**inputs, **self._generation_settings(settings))
        if not isinstance(out, Tensor):
            return cast(ModelOutput, out)
        return [self.engine.reply("", row[inputs["input_ids"].shape[1] :].tolist()).text for row in out]

    def _generation_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of transformers, with what they leave open: the end of a reply, padding, and a length."""
        pad = self.processor.tokenizer.pad_token_id
        given = settings.get("generation_config")
        if given is None:
            length = {} if "max_length" in settings else {"max_new_tokens": MAX_NEW_TOKENS}
            return {"eos_token_id": self.engine.end_ids, "pad_token_id": pad, **length, **settings}
        config = copy.deepcopy(given)
        config.eos_token_id = self.engine.end_ids if config.eos_token_id is None else config.eos_token_id
        config.pad_token_id = pad if config.pad_token_id is None else config.pad_token_id
        lengths = (config.max_new_tokens, settings.get("max_length"))
        if lengths == (None, None) and config.max_length in (None, GenerationConfig().max_length):
            config.max_new_tokens = MAX_NEW_TOKENS
        return {**settings, "generation_config": config}

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write model, processor and settings as a checkpoint in our layout, which `from_pretrained` and ``eval`` take.

        Raises:
            ValueError: the weights are quantised, or are those of a training run that was not merged.
        """
        if getattr(self.model, "is_quantized", False):
            raise ValueError("quantised weights are no checkpoint: load it with bits=16 or bits=32 to save it")
        if self._described.state is not None:
            raise ValueError(
                f"{self._described.folder} is what a training run left: make one checkpoint of it with "
                f"`lbk_entry.py merge {self._described.folder} --out DIR`"
            )
        folder = Path(directory).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        share_weights(folder)
        self.processor.save_pretrained(folder)
        write_recorded(folder, self.settings)

    def _engine(self, crayon: bool) -> Engine:
        """The engine, or one of the same weights that is shown no map."""
        if crayon:
            return self.engine
        if self._without is None:
            own = self.engine
            identity = f"{own.fingerprint}, no map"
            self._without = Engine(self.model, self.processor, NoSegmenter(), own.template, identity, own.crayon)
        return self._without

    def _prompt(self, crayon: CrayonPrompt | None, question: str) -> str:
        objects = None if crayon is None else object_list(crayon.objects)
        with_objects = self.engine.crayon.object_list
        return self.engine.template.prompt(objects, question.replace(IMAGE_TAG, ""), with_objects=with_objects)

    def _image(self, image: ImageInput | None) -> DecodedImage | None:
        return None if image is None else self._square(image)

    def _square(self, image: ImageInput) -> DecodedImage:
        return decode_image_input(image, self.processor.image_size)

    def _pairs(
        self, image: ImageInput | Sequence[ImageInput | None] | None, question: str | Sequence[str]
    ) -> tuple[list[DecodedImage | None], list[str]]:
        """An image and a question each.

        Raises:
            ValueError: there are several images, but not as many as questions.
        """
        questions = [question] if isinstance(question, str) else list(question)
        if not isinstance(image, (list, tuple)):
            return [self._image(image)] * len(questions), questions  # type: ignore[arg-type]
        if len(image) != len(questions):
            raise ValueError(f"{len(image)} images for {len(questions)} questions: give one, or one for each")
        return [self._image(one) for one in image], questions


def _generation(options: dict[str, Any]) -> Generation:
    """What is asked of a search; unknown names raise a TypeError."""
    return Generation(**{"num_beams": 1, "max_new_tokens": MAX_NEW_TOKENS, **options})


def _compute_type(bits: Bits, device: torch.device) -> DType:
    """The compute type where none is asked for: what a CPU multiplies well, and what was released elsewhere."""
    if bits == 32 or (device.type == "cpu" and bits != 16):
        return "fp32"
    return "bf16" if device.type == "cpu" else "fp16"


def _segmenter_config(
    segmenter: str | os.PathLike[str] | SegmenterConfig | Segmenter | None, checkpoint: Path
) -> SegmenterConfig:
    """The settings of a segmenter that is named, found at a path, or recorded by a checkpoint.

    Raises:
        CheckpointError: none is named, and the checkpoint names none.
        SegmenterError: there is no such backend, and no such path.
    """
    if isinstance(segmenter, SegmenterConfig):
        return segmenter
    if segmenter is None:
        if read_recorded(checkpoint).segmenter is None and not _is_released(checkpoint):
            raise CheckpointError(
                f"{checkpoint} names no segmenter; give one: segmenter='mask2former', 'xdecoder' with a path, "
                "or 'none' for no crayon prompt"
            )
        return SegmenterConfig()
    if isinstance(segmenter, (str, os.PathLike)):
        return _named(segmenter)
    raise SegmenterError(
        f"segmenter: expected a name, a path, settings or an object with 'segment', not {type(segmenter).__name__}"
    )


def _is_released(checkpoint: Path) -> bool:
    return (checkpoint / "config.json").is_file() and is_released_layout(checkpoint)


def _named(segmenter: str | os.PathLike[str]) -> SegmenterConfig:
    """A backend by its name, or by where its weights lie."""
    if segmenter in backends():
        return SegmenterConfig(NAME=str(segmenter))
    path = Path(segmenter).expanduser()
    if not path.exists():
        hint = did_you_mean(str(segmenter), backends(), n=1)
        raise SegmenterError(
            f"segmenter: '{shown(str(segmenter))}' is no path and no backend{hint} There are: {', '.join(backends())}"
        )
    name = _SUFFIXES.get(path.suffix) or _kind_of(path)
    return SegmenterConfig(NAME=name, PATH=str(path))


def _kind_of(path: Path) -> str:
    """The backend that a directory of weights belongs to: transformers' Mask2Former says so, ours is X-Decoder."""
    if not path.is_dir():
        raise SegmenterError(
            f"segmenter: {shown(str(path))} has no suffix of a segmenter's weights ({', '.join(_SUFFIXES)}); give a "
            "SegmenterConfig with NAME and PATH"
        )
    kind = read_json(path / "config.json").get("model_type")
    return "mask2former" if kind == "mask2former" else "xdecoder"
