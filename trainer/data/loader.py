"""The data of a training run: sources of samples, their order, and the batches that the loop takes.

A step's samples follow from seed and step alone; every process prepares only its own share, some steps ahead.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from collavo.adapters import IMAGE_CIT, VL_CIT
from collavo.crayon import CrayonPrompt, crayon_prompt, object_list
from collavo.instructions import Kind
from collavo.model import IGNORE_INDEX
from collavo.options import CrayonConfig
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT, IMAGE_TAG
from collavo.training_inputs import ConversationError, training_inputs
from datasets.image import decode
from datasets.instruct.order import DataOrder, adapter_of, adapter_step, share
from datasets.instruct.panoptic import PanopticImage
from datasets.instruct.types import Sample, share_images
from datasets.types import DataError, ImageSource
from modeling.segmenters.base import DecodedImage, PanopticMap
from modeling.segmenters.coco import COCO_PANOPTIC, display_name
from modeling.segmenters.errors import SegmenterError
from pipeline.runtime.console import warn

from ..parallel.trainable import CRAYON
from .batches import IDLE, Batch, Example, collate
from .crayon_samples import crayon_sample
from .maps import MapCache, corrupt_map

T = TypeVar("T")
Int64Array = npt.NDArray[np.int64]
CHARACTERS_PER_TOKEN = 4
"""Rough, to sort by length; nothing else depends on it."""
THING_CLASSES = tuple(index for index, category in enumerate(COCO_PANOPTIC) if category.is_thing)
SAMPLE_ERRORS = (DataError, SegmenterError, ConversationError)
"""What can be wrong with one sample and not with the others."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How samples become examples.

    Attributes:
        processor: of the model.
        max_length: longest row in tokens, image tokens counted.
        seed: of the run.
        crayon: what the model is told of an image's objects.
        corrupt: see `trainer.data.maps.corrupt_map`.
        questions: how many crayon instructions a sample holds.
    """

    processor: CoLLaVOProcessor
    max_length: int
    seed: int
    crayon: CrayonConfig = field(default_factory=CrayonConfig)
    corruption: float = 0.0
    questions: int = 1

    @property
    def map_side(self) -> int:
        """Side of the panoptic maps."""
        return self.processor.grid * self.crayon.map_scale

    def load_image(
        self, image: ImageSource, maps: MapCache, *key: int, classes: Sequence[int] = THING_CLASSES
    ) -> tuple[DecodedImage, CrayonPrompt, CrayonPrompt]:
        """An image, what is truly in it, and what the model is told.

        Args:
            image: the image.
            maps: of the source.
            *key: numbers that the errors are drawn from.
            classes: what an object of a corrupted map may be taken for.

        Raises:
            DataError, SegmenterError: the image is unreadable, or has no map.
        """
        decoded = DecodedImage(decode(image, self.processor.image_size), image.name)
        panoptic: PanopticMap = maps.of(decoded)
        true = crayon_prompt(panoptic, self.processor.grid)
        if not self.corruption:
            return decoded, true, true
        rng = np.random.default_rng([self.seed, *key])
        return decoded, true, crayon_prompt(corrupt_map(panoptic, self.corruption, classes, rng), self.processor.grid)

    def example(self, sample: Sample, decoded: DecodedImage | None, crayon: CrayonPrompt | None) -> Example:
        """A sample as ids and labels.

        Raises:
            ConversationError: it cannot be trained on.
        """
        told = None if crayon is None else object_list(crayon.objects)
        tokens = self.processor.grid**2
        inputs = training_inputs(self.processor.tokenizer, CHAT, sample, told, tokens, self.max_length)
        return Example(
            id=sample.id,
            input_ids=inputs.input_ids,
            labels=inputs.labels,
            pixels=None if decoded is None else decoded.pixels,
            crayon=crayon,
            parts=inputs.parts,
        )


class Source(Protocol):
    """Samples of one kind."""

    @property
    def lengths(self) -> Int64Array:
        """About how many tokens each has, int64 (N,)."""

    def example(self, index: int, step: int) -> Example:
        """Prepare one sample.

        Raises:
            DataError, SegmenterError, ConversationError: it cannot be trained on.
        """


class Conversations:
    """Visual instructions: conversations as they were read.

    Args:
        samples: at least one.
        maps: of their images.
        preparation: see `Preparation`.
    """

    def __init__(self, samples: Sequence[Sample], maps: MapCache, preparation: Preparation) -> None:
        self._samples, self._maps, self._preparation = samples, maps, preparation
        tokens = preparation.processor.grid**2
        self.lengths = np.array([_length(sample, tokens) for sample in samples], np.int64)

    def example(self, index: int, step: int) -> Example:
        """See `Source.example`."""
        sample = self._samples[index]
        if sample.image is None:
            return self._preparation.example(sample, None, None)
        decoded, _, told = self._preparation.load_image(sample.image, self._maps, step, index)
        return self._preparation.example(sample, decoded, told)


class CrayonInstructions:
    """Object-level instructions, drawn anew for every step.

    Args:
        images: that have a panoptic map.
        maps: theirs.
        kinds: what is asked.
        preparation: see `Preparation`.
        names: official names of the classes that questions may be about.
    """

    def __init__(
        self,
        images: Sequence[PanopticImage],
        maps: MapCache,
        kinds: Sequence[Kind],
        preparation: Preparation,
        names: Sequence[str],
    ) -> None:
        self._images, self._maps, self._kinds = images, maps, kinds
        self._preparation = preparation
        self._names = tuple(map(display_name, names))
        self._things = [i for i in THING_CLASSES if COCO_PANOPTIC[i].name in names] or list(THING_CLASSES)
        self.lengths = np.full(len(images), preparation.processor.grid**2, np.int64)

    def example(self, index: int, step: int) -> Example:
        """See `Source.example`. The answer tells the truth, also where the map that the model sees is corrupted."""
        listed = self._images[index]
        decoded, true, told = self._preparation.load_image(listed.image, self._maps, step, index, classes=self._things)
        seed, num = (self._preparation.seed, step, index), self._preparation.questions
        seeds = [seed] if num == 1 else [(*seed, number) for number in range(num)]
        made = [crayon_sample(listed, true, self._kinds, each, self._names) for each in seeds]
        samples = share_images([sample for sample in made if sample is not None], num)
        if not samples:
            raise DataError(f"image {listed.image.name}: nothing can be asked about its objects")
        return self._preparation.example(samples[0], decoded, told)


def prepared_ahead(prepare: Callable[[int], T], steps: Iterable[int], workers: int) -> Iterator[T]:
    """What is prepared for each of some steps, in order; a few steps ahead of who takes it.

    Args:
        prepare: for a step.
        steps: numbers.
        workers: threads, and how many steps they are ahead.
    """
    ahead: deque[Future[T]] = deque()
    upcoming = iter(steps)
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        try:
            while True:
                while len(ahead) <= workers and (step := next(upcoming, None)) is not None:
                    ahead.append(pool.submit(prepare, step))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _length(sample: Sample, image_tokens: int) -> int:
    text = sum(len(turn.question) + len(turn.answer) for turn in sample.turns)
    return text // CHARACTERS_PER_TOKEN + (image_tokens if sample.image is not None else 0)


class Schedule:
    """The batches of a run; see `trainer.loop.TrainingData`.

    Args:
        sources: adapter -> its samples.
        preparation: see `Preparation`.
        batch_size_total: samples of an update, over all processes.
        batch_size: samples that run through the model at a time.
        by_length: whether samples of similar length share a batch.
        image_share: probability that an update is one of Image-CIT, where there are two adapters.
        workers: how many updates are prepared ahead, each in a thread.
        alike: give every process as many microbatches as every other, each with an image: rows that teach nothing fill
            up.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        preparation: Preparation,
        *,
        batch_size_total: int,
        batch_size: int,
        by_length: bool,
        image_share: float,
        workers: int,
        alike: bool = False,
    ) -> None:
        self._sources, self._preparation, self._alike, self._batch_size_total = (
            sources,
            preparation,
            alike,
            batch_size_total,
        )
        self._batch_size, self._workers = batch_size, workers
        self._share = image_share if {IMAGE_CIT, VL_CIT} <= set(sources) else float(IMAGE_CIT in sources)
        chunk = {} if by_length else {"chunk_batches": 1}
        self._orders = {
            name: DataOrder(lengths=source.lengths, batch_size=batch_size_total, seed=preparation.seed, **chunk)
            for name, source in sources.items()
        }
        self.skipped: Counter[str] = Counter()

    @property
    def num_samples(self) -> int:
        """Of all sources together."""
        return sum(len(source.lengths) for source in self._sources.values())

    @property
    def identity(self) -> str:
        """Names the samples that the order is made of; with others, of whatever reason, it would be another order."""
        digest = hashlib.sha256()
        for name in sorted(self._sources):
            digest.update(name.encode() + self._sources[name].lengths.astype("<i8").tobytes())
        return f"{self.num_samples} samples ({digest.hexdigest()[:8]})"

    def adapter(self, step: int) -> str:
        """See `TrainingData.adapter`."""
        return CRAYON if CRAYON in self._sources else adapter_of(self._preparation.seed, step, self._share)

    def samples(self, step: int) -> Int64Array:
        """Numbers of the samples of a step, in its adapter's source: those of all processes."""
        adapter = self.adapter(step)
        place = step if adapter == CRAYON else adapter_step(self._preparation.seed, step, self._share)
        return self._orders[adapter].batch(place)

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[list[Batch]]:
        """See `TrainingData.batches`."""
        return prepared_ahead(lambda step: self._prepare(step, rank, world), range(start, stop), self._workers)

    def _prepare(self, step: int, rank: int, world: int) -> list[Batch]:
        """A process's share of a step; where nothing of it is usable, a row that teaches nothing."""
        source = self._sources[self.adapter(step)]
        examples = []
        for index in share(self.samples(step), rank, world):
            try:
                examples.append(source.example(int(index), step))
            except SAMPLE_ERRORS as error:
                self.skipped[type(error).__name__] += 1
                warn(f"update {step + 1}: a sample is skipped: {error}")
        examples.sort(key=lambda example: -len(example.input_ids))
        microbatches = [examples[i : i + self._batch_size] for i in range(0, len(examples), self._batch_size)]
        if self._alike:
            microbatches = self._filled_up(microbatches, world)
        return [collate(microbatch, self._preparation.processor) for microbatch in microbatches or [[self._idle()]]]

    def _filled_up(self, microbatches: list[list[Example]], world: int) -> list[list[Example]]:
        """As many microbatches as the largest share has, and an image in each, so that they reach every parameter."""
        largest = -(-self._batch_size_total // world)
        microbatches = microbatches + [[] for _ in range(-(-largest // self._batch_size) - len(microbatches))]
        return [
            microbatch if any(e.pixels is not None for e in microbatch) else [*microbatch, self._idle(decoded=True)]
            for microbatch in microbatches
        ]

    def _idle(self, *, decoded: bool = False) -> Example:
        """A row without labels, so that a process without samples takes part in the update all the same."""
        processor = self._preparation.processor
        ids = processor.encode([f"{IMAGE_TAG}-" if decoded else "-"])[0]
        labels, side = [IGNORE_INDEX] * len(ids), processor.image_size
        if not decoded:
            return Example(id=IDLE, input_ids=ids, labels=labels)
        pixels, prompt = np.zeros((side, side, 3), np.uint8), CrayonPrompt.empty(processor.grid)
        return Example(id=IDLE, input_ids=ids, labels=labels, pixels=pixels, crayon=prompt)
