"""The data of a training run: sources of samples, their order, and the batches that the loop takes.

A step's samples follow from seed and step alone; every process prepares only its own share, some steps ahead.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from collavo.adapters import IMAGE_CIT, VL_CIT
from collavo.crayon import CrayonPrompt, crayon_prompt, object_list
from collavo.instructions import Kind
from collavo.options import CrayonConfig
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT, IMAGE_TAG
from collavo.training_inputs import IGNORE_INDEX, ConversationError, training_inputs
from configs.load import ConfigError
from datasets.image import decode
from datasets.instruct.mixture import Mixture, SourcePart
from datasets.instruct.order import DataOrder, adapter_of, adapter_step, image_steps, share, steps_until
from datasets.instruct.panoptic import PanopticImage
from datasets.instruct.types import Sample, share_images
from datasets.types import DataError, ImageSource
from modeling.segmenters.base import DecodedImage, PanopticMap, Segmenter
from modeling.segmenters.coco import COCO_PANOPTIC, display_name
from modeling.segmenters.errors import SegmenterError
from pipeline.runtime.console import warn

from ..loop import Share
from ..parallel.trainable import CRAYON
from .batches import IDLE, Example, Place, Row, collate, packed
from .crayon_samples import crayon_sample
from .maps import corrupt_map
from .reading import PANOPTIC

T = TypeVar("T")
Int64Array = npt.NDArray[np.int64]
CHARACTERS_PER_TOKEN = 4
"""Rough, to sort by length; nothing else depends on it."""
THING_CLASSES = tuple(index for index, category in enumerate(COCO_PANOPTIC) if category.is_thing)
SAMPLE_ERRORS = (DataError, SegmenterError, ConversationError)
"""What can be wrong with one sample and not with the others."""
HELD_OUT_STEP = 2**40
"""Stands for the step where held-out instructions are drawn: they are the same in every validation."""
SHOWN = 20
"""How many skipped samples a process names; the others are only counted."""
MOST_UPDATES = 10**8
"""Of a training run whose length follows from its data."""


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
        max_length: longest row in tokens, image tokens counted.
        seed: of the run.
        crayon: what the model is shown of an image's objects.
        corruption: share of objects, see `trainer.data.maps.corrupt_map`.
        questions: how many crayon instructions a sample holds.
        place: see `trainer.data.batches.collate`.
    """

    processor: CoLLaVOProcessor
    max_length: int
    seed: int
    crayon: CrayonConfig = field(default_factory=CrayonConfig)
    corruption: float = 0.0
    questions: int = 1
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
        decoded = DecodedImage(decode(image, self.processor.image_size), image.name)
        begun = time.perf_counter()
        panoptic: PanopticMap = segmenter.segment([decoded], (self.map_side, self.map_side))[0]
        seconds = time.perf_counter() - begun
        shown = true = crayon_prompt(panoptic, self.processor.grid)
        if self.corruption:
            rng = np.random.default_rng([self.seed, *key])
            shown = crayon_prompt(corrupt_map(panoptic, self.corruption, classes, rng), self.processor.grid)
        return ShownImage(decoded=decoded, true=true, shown=shown, map_seconds=seconds)

    def example(self, sample: Sample, image: ShownImage | None) -> Example:
        """A sample as ids and labels.

        Raises:
            ConversationError: it cannot be trained on.
        """
        objects = None if image is None else object_list(image.shown.objects)
        tokens = self.processor.grid**2
        inputs = training_inputs(self.processor.tokenizer, CHAT, sample, objects, tokens, self.max_length)
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
        seed, num = (self._preparation.seed, step, index), self._preparation.questions
        seeds = [seed] if num == 1 else [(*seed, number) for number in range(num)]
        made = [crayon_sample(listed, image.true, self._kinds, each, self._names) for each in seeds]
        samples = share_images([sample for sample in made if sample is not None], num)
        if not samples:
            raise DataError(f"image {listed.image.name}: nothing can be asked about its objects")
        return self._preparation.example(samples[0], image)


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


class Batches:
    """Makes a process's share of a batch.

    Args:
        sources: adapter -> its samples.
        preparation: see `Preparation`.
        batch_size_total: samples of a batch, over all processes.
        batch_size: rows that run through the model at a time.
        alike: give every process as many microbatches as every other, each with an image: rows that teach nothing fill
            up.
        pack: put samples into one row where they fit.
    """

    def __init__(
        self,
        sources: Mapping[str, SampleSource],
        preparation: Preparation,
        *,
        batch_size_total: int,
        batch_size: int,
        alike: bool = False,
        pack: bool = False,
    ) -> None:
        self.by_adapter, self.preparation, self.batch_size_total = sources, preparation, batch_size_total
        self._batch_size, self._alike, self._pack = batch_size, alike, pack
        self.mixtures = {adapter: Mixture(parts=one.parts, seed=preparation.seed) for adapter, one in sources.items()}
        self._named = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all parts."""
        return tuple(part.name for source in self.by_adapter.values() for part in source.parts)

    @property
    def num_samples(self) -> int:
        """Of all sources together."""
        return sum(len(source.lengths) for source in self.by_adapter.values())

    def share(self, adapter: str, samples: Int64Array, step: int, place: str, rank: int, world: int) -> Share:
        """Prepare a process's share; where nothing of it is usable, a row that teaches nothing.

        Args:
            adapter: whose samples they are.
            samples: numbers of all samples of the batch.
            step: what instructions are drawn for.
            place: names the batch in messages.
            rank: of the process.
            world: processes.
        """
        source, mixture = self.by_adapter[adapter], self.mixtures[adapter]
        examples, skipped = [], []
        for index in map(int, share(samples, rank, world)):
            try:
                examples.append(replace(source.example(index, step), source=mixture.name(index)))
            except SAMPLE_ERRORS as error:
                skipped.append(str(error))
                self._report(place, error)
        examples.sort(key=lambda example: -len(example.input_ids))
        microbatches = self._microbatches(examples, world)
        seconds = sum(example.map_seconds for example in examples)
        preparation = self.preparation
        laid = [collate(microbatch, preparation.processor, preparation.place) for microbatch in microbatches]
        return Share(laid, skipped, seconds)

    def _report(self, place: str, error: Exception) -> None:
        self._named += 1
        if self._named <= SHOWN:
            more = "; this process only counts further ones" if self._named == SHOWN else ""
            warn(f"{place}: a sample is skipped: {error}{more}")

    def _microbatches(self, examples: list[Example], world: int) -> list[list[Row]]:
        """Cut examples into microbatches of rows, at least one."""
        rows: list[Row] = [[example] for example in examples]
        if self._pack:
            rows = packed(examples, self.preparation.processor.grid**2, self.preparation.max_length)
        microbatches = [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]
        if self._alike:
            microbatches = self._filled_up(microbatches, world)
        return microbatches or [[[self._idle()]]]

    def _filled_up(self, microbatches: list[list[Row]], world: int) -> list[list[Row]]:
        """As many microbatches as the largest share has, and an image in each, so that they reach every parameter."""
        largest = -(-self.batch_size_total // world)
        microbatches = microbatches + [[] for _ in range(-(-largest // self._batch_size) - len(microbatches))]
        return [
            microbatch
            if any(e.pixels is not None for row in microbatch for e in row)
            else [*microbatch, [self._idle(decoded=True)]]
            for microbatch in microbatches
        ]

    def _idle(self, *, decoded: bool = False) -> Example:
        """A row without labels, so that a process without samples takes part in the update all the same."""
        processor = self.preparation.processor
        ids = processor.encode([f"{IMAGE_TAG}-" if decoded else "-"])[0]
        labels, side = [IGNORE_INDEX] * len(ids), processor.image_size
        if not decoded:
            return Example(id=IDLE, input_ids=ids, labels=labels)
        pixels, prompt = np.zeros((side, side, 3), np.uint8), CrayonPrompt.empty(processor.grid)
        return Example(id=IDLE, input_ids=ids, labels=labels, pixels=pixels, crayon=prompt)


class Schedule:
    """The batches of a run; see `trainer.loop.TrainingData`.

    Args:
        batches: makes them.
        by_length: whether samples of similar length share a batch.
        image_share: probability that an update is one of Image-CIT, where there are two adapters; None for the share
            of its samples in a pass over all.
        workers: how many updates are prepared ahead, each in a thread.
    """

    def __init__(self, batches: Batches, *, by_length: bool, image_share: float | None, workers: int) -> None:
        self._batches, self._workers = batches, workers
        self._seed = batches.preparation.seed
        slots = {adapter: mixture.num_slots for adapter, mixture in batches.mixtures.items()}
        both = {IMAGE_CIT, VL_CIT} <= set(slots)
        if not both:
            self._share = float(IMAGE_CIT in slots)
        else:
            self._share = slots[IMAGE_CIT] / sum(slots.values()) if image_share is None else image_share
        chunk = {} if by_length else {"chunk_batches": 1}
        self._orders = {
            name: DataOrder(
                lengths=batches.by_adapter[name].lengths[mixture.samples(np.arange(mixture.num_slots), 0)],
                batch_size=batches.batch_size_total,
                seed=self._seed,
                **chunk,
            )
            for name, mixture in batches.mixtures.items()
        }

    @property
    def sources(self) -> tuple[str, ...]:
        """See `TrainingData.sources`."""
        return self._batches.sources

    @property
    def num_samples(self) -> int:
        """Of all sources together."""
        return self._batches.num_samples

    @property
    def identity(self) -> str:
        """Names the samples that the order is made of; with others, of whatever reason, it would be another order."""
        digest = hashlib.sha256()
        for name in sorted(self._batches.by_adapter):
            digest.update(name.encode() + self._batches.by_adapter[name].lengths.astype("<i8").tobytes())
        return f"{self.num_samples} samples ({digest.hexdigest()[:8]})"

    def adapter(self, step: int) -> str:
        """See `TrainingData.adapter`."""
        return CRAYON if CRAYON in self._orders else adapter_of(self._seed, step, self._share)

    def samples(self, step: int) -> Int64Array:
        """Numbers of the samples of a step, in its adapter's source: those of all processes."""
        adapter = self.adapter(step)
        place = step if adapter == CRAYON else adapter_step(self._seed, step, self._share)
        mixture = self._batches.mixtures[adapter]
        number = place * self._batches.batch_size_total // mixture.num_slots
        return mixture.samples(self._orders[adapter].batch(place), number)

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[Share]:
        """See `TrainingData.batches`."""

        def prepare(step: int) -> Share:
            place = f"update {step + 1}"
            return self._batches.share(self.adapter(step), self.samples(step), step, place, rank, world)

        return prepared_ahead(prepare, range(start, stop), self._workers)

    def passes(self, step: int) -> dict[str, float]:
        """See `TrainingData.passes`."""
        image = image_steps(self._seed, step, self._share) if CRAYON not in self._orders else 0
        made = {CRAYON: step, IMAGE_CIT: image, VL_CIT: step - image}
        found: dict[str, float] = {}
        for adapter, mixture in self._batches.mixtures.items():
            found |= mixture.passes(made[adapter] * self._batches.batch_size_total)
        return found

    def steps_for(self, epochs: float) -> int:
        """The updates of so many passes over the visual instructions, or over the only source that there is.

        Raises:
            ConfigError: next to none of the updates is drawn for visual instructions.
        """
        visual = VL_CIT in self._orders and self._share < 1
        adapter = VL_CIT if visual else IMAGE_CIT if IMAGE_CIT in self._orders else CRAYON
        taken = epochs * self._batches.mixtures[adapter].num_slots
        wanted = max(1, round(taken / self._batches.batch_size_total))
        if not visual:
            return wanted
        if wanted > MOST_UPDATES * (1 - self._share):
            raise ConfigError(
                f"TRAIN.IMAGE_SHARE {self._share:g}: {epochs:g} passes over the visual instructions would take more "
                f"than {MOST_UPDATES} updates; lower it, or set TRAIN.STEPS"
            )
        return steps_until("vl_cit", wanted, self._seed, self._share)


class HeldOut:
    """Held-out samples, in the same batches in every validation; see `trainer.held_out`.

    Args:
        batches: makes them.
        workers: how many batches are prepared ahead, each in a thread.
    """

    def __init__(self, batches: Batches, workers: int) -> None:
        self._batches, self._workers = batches, workers

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all parts."""
        return self._batches.sources

    @property
    def num_samples(self) -> int:
        """Of all sources together."""
        return self._batches.num_samples

    def shares(self, rank: int, world: int) -> Iterator[Share]:
        """A process's share of every batch."""
        size = self._batches.batch_size_total
        parts = []
        for adapter, source in self._batches.by_adapter.items():
            order = np.argsort(-source.lengths, kind="stable").astype(np.int64)  # little padding
            parts += [(adapter, order[i : i + size]) for i in range(0, len(order), size)]

        def prepare(number: int) -> Share:
            adapter, samples = parts[number]
            return self._batches.share(adapter, samples, HELD_OUT_STEP, "validation", rank, world)

        return prepared_ahead(prepare, range(len(parts)), self._workers)
