"""Samples of a training run: what they are made of, and how one becomes an example that the model runs on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from collavo.crayon import CrayonPrompt, crayon_prompt, object_list
from collavo.instructions import Kind
from collavo.options import CrayonConfig
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT
from collavo.training_inputs import ConversationError, training_inputs
from datasets.instruct.mixture import SourcePart
from datasets.instruct.panoptic import PanopticImage
from datasets.instruct.types import Sample, share_images
from datasets.types import DataError, ImageSource
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segmenter
from modeling.segmenters.coco import COCO_PANOPTIC, display_name
from modeling.segmenters.errors import SegmenterError
from pipeline.images import decode_image

from ..config import LoopConfig
from .batches import Example, Place
from .crayon_samples import crayon_sample
from .maps import corrupt_map
from .reading import PANOPTIC

Int64Array = npt.NDArray[np.int64]
CHARACTERS_PER_TOKEN = 4
"""Rough, to sort by length; nothing else depends on it."""
THING_CLASSES = tuple(index for index, category in enumerate(COCO_PANOPTIC) if category.is_thing)
SAMPLE_ERRORS = (DataError, SegmenterError, ConversationError)
"""What can be wrong with one sample and not with the others."""


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """An image as it is trained on.

    Attributes:
        decoded: the image.
        true: what is truly in it.
        shown: what the model is shown.
        map_seconds: its map took.
    """

    decoded: DecodedImage
    true: CrayonPrompt
    shown: CrayonPrompt
    map_seconds: float


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How samples become examples.

    Attributes:
        processor: of the model.
        train: the section ``TRAIN``: ``MAX_LENGTH``, ``QUESTIONS`` and ``SEED`` count.
        crayon: what the model is shown of an image's objects.
        corruption: share of objects, see `trainer.data.maps.corrupt_map`.
        place: see `trainer.data.batches.collate`.
    """

    processor: CoLLaVOProcessor
    train: LoopConfig
    crayon: CrayonConfig = field(default_factory=CrayonConfig)
    corruption: float = 0.0
    place: Place | None = None

    @property
    def map_side(self) -> int:
        """Side of the panoptic maps."""
        return self.processor.grid * self.crayon.map_scale

    def load_image(
        self, image: ImageSource, segmenter: Segmenter, *key: int, classes: Sequence[int] = THING_CLASSES
    ) -> ShownImage:
        """An image, what is truly in it, and what the model is shown.

        Args:
            image: the image.
            segmenter: of the source.
            *key: numbers that the errors are drawn from.
            classes: what an object of a corrupted map may be taken for.

        Raises:
            DataError, SegmenterError: the image is unreadable, or has no map.
        """
        decoded = decode_image(image, self.processor.image_size)
        begun = time.perf_counter()
        panoptic: PanopticMap = segmenter.segment([decoded], (self.map_side, self.map_side))[0]
        seconds = time.perf_counter() - begun
        shown = true = crayon_prompt(panoptic, self.processor.grid)
        if self.corruption:
            rng = np.random.default_rng([self.train.SEED, *key])
            shown = crayon_prompt(corrupt_map(panoptic, self.corruption, classes, rng), self.processor.grid)
        return ShownImage(decoded=decoded, true=true, shown=shown, map_seconds=seconds)

    def example(self, sample: Sample, image: ShownImage | None) -> Example:
        """A sample as ids and labels.

        Raises:
            ConversationError: it cannot be trained on.
        """
        objects = None if image is None else object_list(image.shown.objects)
        tokens = self.processor.grid**2
        inputs = training_inputs(self.processor.tokenizer, CHAT, sample, objects, tokens, self.train.MAX_LENGTH)
        return Example(
            id=sample.id,
            input_ids=inputs.input_ids,
            labels=inputs.labels,
            pixels=None if image is None else image.decoded.pixels,
            crayon=None if image is None else image.shown,
            parts=inputs.parts,
            map_seconds=0.0 if image is None else image.map_seconds,
        )


class SampleSource(Protocol):
    """Samples of one kind."""

    @property
    def lengths(self) -> Int64Array:
        """About how many tokens each has, int64 (N,)."""

    @property
    def parts(self) -> Sequence[SourcePart]:
        """What they consist of, one part behind the other."""

    def example(self, index: int, step: int) -> Example:
        """Prepare one sample.

        Raises:
            DataError, SegmenterError, ConversationError: it cannot be trained on.
        """


class Conversations:
    """Visual instructions: conversations as they were read.

    Args:
        samples: at least one.
        segmenter: gives the maps of their images.
        preparation: see `Preparation`.
        parts: what they consist of, one part behind the other; None for one part.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        segmenter: Segmenter,
        preparation: Preparation,
        parts: Sequence[SourcePart] | None = None,
    ) -> None:
        self._samples, self._segmenter, self._preparation = samples, segmenter, preparation
        self.parts = parts or [SourcePart(name=samples[0].source, size=len(samples))]
        tokens = preparation.processor.grid**2
        self.lengths = np.array([_length(sample, tokens) for sample in samples], np.int64)

    def example(self, index: int, step: int) -> Example:
        """See `SampleSource.example`."""
        sample = self._samples[index]
        if sample.image is None:
            return self._preparation.example(sample, None)
        return self._preparation.example(
            sample, self._preparation.load_image(sample.image, self._segmenter, step, index)
        )


class CrayonInstructions:
    """Object-level instructions, drawn anew for every step.

    Args:
        images: that have a panoptic map.
        segmenter: gives their maps.
        kinds: what is asked.
        preparation: see `Preparation`.
        names: official names of the classes that questions may be about.
    """

    def __init__(
        self,
        images: Sequence[PanopticImage],
        segmenter: Segmenter,
        kinds: Sequence[Kind],
        preparation: Preparation,
        names: Sequence[str],
    ) -> None:
        self._images, self._segmenter, self._kinds = images, segmenter, kinds
        self._preparation = preparation
        self._names = tuple(map(display_name, names))
        self._things = [i for i in THING_CLASSES if COCO_PANOPTIC[i].name in names] or list(THING_CLASSES)
        self.lengths = np.full(len(images), preparation.processor.grid**2, np.int64)
        self.parts: Sequence[SourcePart] = [SourcePart(name=PANOPTIC, size=len(images))]

    def example(self, index: int, step: int) -> Example:
        """See `SampleSource.example`. The answer is right, also where the map that the model sees is corrupted."""
        listed = self._images[index]
        image = self._preparation.load_image(listed.image, self._segmenter, step, index, classes=self._things)
        seed, num = (self._preparation.train.SEED, step, index), self._preparation.train.QUESTIONS
        seeds = [seed] if num == 1 else [(*seed, number) for number in range(num)]
        made = [crayon_sample(listed, image.true, self._kinds, each, self._names) for each in seeds]
        samples = share_images([sample for sample in made if sample is not None], num)
        if not samples:
            raise DataError(f"image {listed.image.name}: nothing can be asked about its objects")
        return self._preparation.example(samples[0], image)


def _length(sample: Sample, image_tokens: int) -> int:
    text = sum(len(turn.question) + len(turn.answer) for turn in sample.turns)
    return text // CHARACTERS_PER_TOKEN + (image_tokens if sample.image is not None else 0)
