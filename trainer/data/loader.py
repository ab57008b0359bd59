"""The batches of a training run: their order, and each process's share of them, prepared some steps ahead.

A step's samples follow from seed and step alone; every process prepares only its own share.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from collavo.adapters import IMAGE_CIT, VL_CIT
from collavo.crayon import CrayonPrompt
from collavo.template import IMAGE_TAG
from collavo.training_inputs import IGNORE_INDEX
from configs.load import ConfigError
from datasets.instruct.mixture import Mixture
from datasets.instruct.order import DataOrder, adapter_of, adapter_step, image_steps, share, steps_until
from pipeline.runtime.console import warn

from ..loop import BatchShare
from ..parallel.trainable import CRAYON
from .batches import IDLE, Example, Row, collate, packed
from .samples import SAMPLE_ERRORS, Preparation, SampleSource

T = TypeVar("T")
Int64Array = npt.NDArray[np.int64]
HELD_OUT_STEP = 2**40
"""Stands for the step where held-out instructions are drawn: they are the same in every validation."""
SHOWN = 20
"""How many skipped samples a process names; the others are only counted."""
MOST_UPDATES = 10**8
"""Of a training run whose length follows from its data."""


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


class Batches:
    """Makes a process's share of a batch.

    Args:
        sources: adapter -> its samples.
        preparation: see `Preparation`.
        alike: give every process as many microbatches as every other, each with an image: rows that teach nothing fill
            up.
    """

    def __init__(self, sources: Mapping[str, SampleSource], preparation: Preparation, *, alike: bool = False) -> None:
        self.by_adapter, self.train = sources, preparation.train
        self._processor, self._place = preparation.processor, preparation.place
        self._alike = alike
        self.mixtures = {adapter: Mixture(parts=one.parts, seed=self.train.SEED) for adapter, one in sources.items()}
        self._named = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all parts."""
        return tuple(part.name for source in self.by_adapter.values() for part in source.parts)

    @property
    def num_samples(self) -> int:
        """Of all sources together."""
        return sum(len(source.lengths) for source in self.by_adapter.values())

    def share(self, adapter: str, samples: Int64Array, step: int, place: str, rank: int, world: int) -> BatchShare:
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
            name = mixture.name(index)
            try:
                examples.append(replace(source.example(index, step), source=name))
            except SAMPLE_ERRORS as error:
                skipped.append(f"{name}: {error}")  # a record may have the name of one in another file
                self._report(place, skipped[-1])
        examples.sort(key=lambda example: -len(example.input_ids))
        microbatches = self._microbatches(examples, world)
        seconds = sum(example.map_seconds for example in examples)
        laid = [collate(microbatch, self._processor, self._place) for microbatch in microbatches]
        return BatchShare(laid, skipped, seconds)

    def _report(self, place: str, reason: str) -> None:
        self._named += 1
        if self._named <= SHOWN:
            more = "; this process only counts further ones" if self._named == SHOWN else ""
            warn(f"{place}: a sample is skipped: {reason}{more}")

    def _microbatches(self, examples: list[Example], world: int) -> list[list[Row]]:
        """Cut examples into microbatches of rows, at least one."""
        rows: list[Row] = [[example] for example in examples]
        if self.train.PACK:
            rows = packed(examples, self._processor.grid**2, self.train.MAX_LENGTH)
        microbatches = [rows[i : i + self.train.BATCH_SIZE] for i in range(0, len(rows), self.train.BATCH_SIZE)]
        if self._alike:
            microbatches = self._filled_up(microbatches, world)
        return microbatches or [[[self._idle()]]]

    def _filled_up(self, microbatches: list[list[Row]], world: int) -> list[list[Row]]:
        """As many microbatches as the largest share has, and an image in each, so that they reach every parameter."""
        largest = -(-self.train.BATCH_SIZE_TOTAL // world)
        microbatches = microbatches + [[] for _ in range(-(-largest // self.train.BATCH_SIZE) - len(microbatches))]
        return [
            microbatch
            if any(e.pixels is not None for row in microbatch for e in row)
            else [*microbatch, [self._idle(decoded=True)]]
            for microbatch in microbatches
        ]

    def _idle(self, *, decoded: bool = False) -> Example:
        """A row without labels, so that a process without samples takes part in the update all the same."""
        processor = self._processor
        ids = processor.encode([f"{IMAGE_TAG}-" if decoded else "-"])[0]
        labels, side = [IGNORE_INDEX] * len(ids), processor.image_size
        if not decoded:
            return Example(id=IDLE, input_ids=ids, labels=labels)
        pixels, prompt = np.zeros((side, side, 3), np.uint8), CrayonPrompt.empty(processor.grid)
        return Example(id=IDLE, input_ids=ids, labels=labels, pixels=pixels, crayon=prompt)


class Schedule:
    """The batches of a run; see `trainer.loop.TrainingData`.

    Args:
        batches: makes them; of its section ``TRAIN`` ``GROUP_BY_LENGTH``, ``IMAGE_SHARE`` and ``WORKERS`` count here.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches, train = batches, batches.train
        self._seed = train.SEED
        slots = {adapter: mixture.num_slots for adapter, mixture in batches.mixtures.items()}
        both = {IMAGE_CIT, VL_CIT} <= set(slots)
        if not both:
            self._share = float(IMAGE_CIT in slots)
        else:
            self._share = slots[IMAGE_CIT] / sum(slots.values()) if train.IMAGE_SHARE is None else train.IMAGE_SHARE
        chunk = {} if train.GROUP_BY_LENGTH else {"chunk_batches": 1}
        self._orders = {
            name: DataOrder(
                lengths=batches.by_adapter[name].lengths[mixture.samples(np.arange(mixture.num_slots), 0)],
                batch_size=batches.train.BATCH_SIZE_TOTAL,
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
        number = place * self._batches.train.BATCH_SIZE_TOTAL // mixture.num_slots
        return mixture.samples(self._orders[adapter].batch(place), number)

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[BatchShare]:
        """See `TrainingData.batches`."""

        def prepare(step: int) -> BatchShare:
            place = f"update {step + 1}"
            return self._batches.share(self.adapter(step), self.samples(step), step, place, rank, world)

        return prepared_ahead(prepare, range(start, stop), self._batches.train.WORKERS)

    def passes(self, step: int) -> dict[str, float]:
        """See `TrainingData.passes`."""
        image = image_steps(self._seed, step, self._share) if CRAYON not in self._orders else 0
        made = {CRAYON: step, IMAGE_CIT: image, VL_CIT: step - image}
        found: dict[str, float] = {}
        for adapter, mixture in self._batches.mixtures.items():
            found |= mixture.passes(made[adapter] * self._batches.train.BATCH_SIZE_TOTAL)
        return found

    def steps_for(self, epochs: float) -> int:
        """The updates of so many passes over the visual instructions, or over the only source that there is.

        Raises:
            ConfigError: next to none of the updates is drawn for visual instructions.
        """
        visual = VL_CIT in self._orders and self._share < 1
        adapter = VL_CIT if visual else IMAGE_CIT if IMAGE_CIT in self._orders else CRAYON
        taken = epochs * self._batches.mixtures[adapter].num_slots
        wanted = max(1, round(taken / self._batches.train.BATCH_SIZE_TOTAL))
        if not visual:
            return wanted
        if wanted > MOST_UPDATES * (1 - self._share):
            raise ConfigError(
                f"TRAIN.IMAGE_SHARE {self._share:g}: {epochs:g} passes over the visual instructions would take more "
                f"than {MOST_UPDATES} updates; lower it, or set TRAIN.STEPS"
            )
        return steps_until("vl_cit", wanted, self._seed, self._share)


class HeldOutBatches:
    """Held-out samples, in the same batches in every validation; see `trainer.held_out`.

    Args:
        batches: makes them; ``TRAIN.WORKERS`` are prepared ahead, each in a thread.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all parts."""
        return self._batches.sources

    @property
    def num_samples(self) -> int:
        """Of all sources together."""
        return self._batches.num_samples

    def shares(self, rank: int, world: int) -> Iterator[BatchShare]:
        """A process's share of every batch."""
        size = self._batches.train.BATCH_SIZE_TOTAL
        parts = []
        for adapter, source in self._batches.by_adapter.items():
            order = np.argsort(-source.lengths, kind="stable").astype(np.int64)  # little padding
            parts += [(adapter, order[i : i + size]) for i in range(0, len(order), size)]

        def prepare(number: int) -> BatchShare:
            adapter, samples = parts[number]
            return self._batches.share(adapter, samples, HELD_OUT_STEP, "validation", rank, world)

        return prepared_ahead(prepare, range(len(parts)), self._batches.train.WORKERS)
