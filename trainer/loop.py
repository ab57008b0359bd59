"""The training loop: the same for every stage.

An update takes one batch of the whole run. Every process takes its share, in small microbatches whose gradients add up,
and the loss is a mean over the whole batch (over its answer tokens, or its masks), wherever it is computed: neither the
number of processes nor the size of the microbatches changes what an update does, beyond rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol, overload

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import RunError

from .optimizer import FACTOR
from .parallel.placement import Placement
from .schedule import learning_rate
from .skipped import SkippedSamples

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .config import LoopConfig


@dataclass(frozen=True, kw_only=True)
class BatchTotals:
    """Numbers of a whole batch, over all processes.

    Attributes:
        samples: in it.
        labels: what the loss is a mean over: answer tokens, or masks; at least 1.
    """

    samples: int
    labels: int


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of some samples.

    Attributes:
        samples: how many.
        tokens: text tokens; an image counts as one.
        labels: what the loss is a mean over.
        images: how many.
        squares: sum of the squared lengths of the rows, image tokens counted: what attention costs.
    """

    samples: int = 0
    tokens: int = 0
    labels: int = 0
    images: int = 0
    squares: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def as_list(self) -> list[int]:
        """The counts, in the order of the attributes."""
        return [getattr(self, one.name) for one in fields(self)]


class Microbatch(Protocol):
    """What runs through a model at a time."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of its samples."""

    @property
    def num_tokens(self) -> int:
        """Text tokens of the samples."""

    @property
    def num_labels(self) -> int:
        """Its part of `BatchTotals.labels`."""

    @property
    def num_images(self) -> int:
        """Of the samples."""

    def to(self, device: torch.device) -> Microbatch:
        """The same on a device."""

    @property
    def tallies(self) -> Mapping[str, Tally]:
        """Its counts by source."""

    def losses(self, model: nn.Module, totals: BatchTotals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Its share of the batch's loss, a scalar: all microbatches add up to it. And each source's part of it."""


@dataclass(frozen=True)
class BatchShare(Sequence[Microbatch]):
    """A process's share of an update's batch.

    Attributes:
        microbatches: at least one.
        skipped: why samples of it are left out, one line each.
        map_seconds: it took to make the panoptic maps of its images.
    """

    microbatches: Sequence[Microbatch]
    skipped: Sequence[str] = ()
    map_seconds: float = 0.0

    @overload
    def __getitem__(self, index: int) -> Microbatch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Microbatch]: ...

    def __getitem__(self, index: int | slice) -> Microbatch | Sequence[Microbatch]:
        return self.microbatches[index]

    def __len__(self) -> int:
        return len(self.microbatches)


class TrainingData(Protocol):
    """Where the batches of a run come from."""

    @property
    def sources(self) -> Sequence[str]:
        """Names of the sources, in the same order on every process."""

    def adapter(self, step: int) -> str:
        """Which parameters a step trains, by name of a group."""

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[BatchShare]:
        """This process's share of each step's batch, from ``start`` on; prepared ahead."""

    def passes(self, step: int) -> Mapping[str, float]:
        """How often so many updates go through each source."""


@dataclass(frozen=True, kw_only=True)
class SourceUpdate:
    """What an update took from one source.

    Attributes:
        loss: mean over the source's labels.
        tally: counts of its samples.
    """

    loss: float
    tally: Tally


@dataclass(frozen=True, kw_only=True)
class Update:
    """What an update was.

    Attributes:
        step: from 1: updates made so far.
        adapter: which parameters it trained.
        loss: mean over the whole batch (cross-entropies in nats).
        norm: of the gradient, before it is clipped.
        rate: learning rate.
        samples: in the whole batch.
        tokens: text tokens in the whole batch, padding left out; an image counts as one.
        labels: answer tokens (or masks) in the whole batch.
        seconds: it took, with the wait for its data.
        data_seconds: the wait for its data, on this process.
        map_seconds: making panoptic maps took, on this process, in threads that work ahead.
        skipped: samples that were left out.
        finite: whether loss and gradient are numbers; if not, nothing was updated.
        sources: what it took from each source that it drew from.
    """

    step: int
    adapter: str
    loss: float
    norm: float
    rate: float
    samples: int
    tokens: int
    labels: int
    seconds: float
    data_seconds: float = 0.0
    map_seconds: float = 0.0
    skipped: int = 0
    finite: bool = True
    sources: Mapping[str, SourceUpdate] = field(default_factory=dict)

    @property
    def tally(self) -> Tally:
        """Counts of all sources."""
        return sum((part.tally for part in self.sources.values()), Tally())


class NonFiniteUpdateError(RunError):
    """The loss or the gradient is no number any more; the message names the samples."""


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Numbers of a whole batch, over all processes."""

    samples: int
    tokens: int
    labels: int
    images: int
    skipped: int
    stop: bool
    tallies: Mapping[str, Tally]


class TrainingLoop:
    """Trains a model.

    Args:
        accelerator: joins the processes.
        placement: the model in training mode, and its optimizer.
        device: of this process.
        train: section ``TRAIN`` of the configuration.
        steps: updates in all; ``train`` may count passes instead.
        autocast: compute type of the forward pass; None for that of the weights.
        stopped: whether this process was asked to end; if one was, all end before the next update.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        placement: Placement,
        device: torch.device,
        train: LoopConfig,
        *,
        steps: int,
        autocast: torch.dtype | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._accelerator, self._placement, self._device = accelerator, placement, device
        self._train, self._steps, self._autocast, self._stopped = train, steps, autocast, stopped
        self._skipped = SkippedSamples(train.MAX_SKIPPED, self._gather)

    def run(self, data: TrainingData, start: int, done: Callable[[Update], bool | None]) -> int:
        """Make all updates from one on.

        Args:
            data: see `TrainingData`.
            start: updates that are already made.
            done: called after every update, on every process; True ends the training run.
        Returns: the updates that are made then.

        Raises:
            NonFiniteUpdateError: see there.
            RunError: nothing of an update's batch can be trained on, or too much is skipped.
        """
        steps, rank, world = self._steps, self._accelerator.process_index, self._accelerator.num_processes
        made = start
        begun = time.perf_counter()
        for step, share in enumerate(data.batches(start, steps, rank, world), start=start):
            update = self._update(step, data, share, begun)
            if update is None:
                return made
            made = update.step
            if done(update):
                return made
            begun = time.perf_counter()  # evaluations and checkpoints are no part of the next update
        return made

    def _update(self, step: int, data: TrainingData, share: BatchShare, begun: float) -> Update | None:
        """Make an update; None if a process was asked to end before it."""
        train, adapter = self._train, data.adapter(step)
        waited = time.perf_counter() - begun
        rate = learning_rate(step, self._steps, highest=train.LR, lowest=train.LR_END, warmup=train.WARMUP)
        for group in self._placement.optimizer.param_groups:
            group["lr"] = rate * group[FACTOR]
        counts = self._count(data.sources, share)
        if counts.stop:
            return None
        self._skipped.add(step, counts.samples, counts.skipped, share.skipped)
        self._placement.train(adapter, images=counts.images > 0)
        loss, by_source = self._backward(
            share.microbatches, data.sources, BatchTotals(samples=counts.samples, labels=max(1, counts.labels))
        )
        norm = self._step(step, loss, share.microbatches)
        return Update(
            step=step + 1,
            adapter=adapter,
            loss=loss,
            norm=norm,
            rate=rate,
            samples=counts.samples,
            tokens=counts.tokens,
            labels=counts.labels,
            seconds=time.perf_counter() - begun,
            data_seconds=waited,
            map_seconds=share.map_seconds,
            skipped=counts.skipped,
            finite=math.isfinite(loss) and math.isfinite(norm),
            sources={
                name: SourceUpdate(loss=by_source[name] * counts.labels / max(1, tally.labels), tally=tally)
                for name, tally in counts.tallies.items()
            },
        )

    def _step(self, step: int, loss: float, microbatches: Sequence[Microbatch]) -> float:
        """Move what is trained; the gradient's norm.

        Raises:
            NonFiniteUpdateError: unless such updates are skipped.
        """
        stop = self._train.NON_FINITE == "stop"
        if stop and not math.isfinite(loss):
            raise self._non_finite(step, "loss", loss, microbatches)
        norm = self._placement.step(self._train.CLIP, drop=not math.isfinite(loss))
        if stop and not math.isfinite(norm):
            raise self._non_finite(step, "gradient", norm, microbatches)
        return norm

    def _count(self, sources: Sequence[str], share: BatchShare) -> _Counts:
        """Counts of the whole batch, in one exchange; and whether any process is to end."""
        own = torch.tensor(_counts(share.microbatches), dtype=torch.float64).sum(0)
        flags = torch.tensor([len(share.skipped), float(self._stopped())], dtype=torch.float64)
        tallies = [
            sum((p.tallies.get(name, Tally()) for p in share.microbatches), Tally()).as_list() for name in sources
        ]
        by_source = torch.tensor(tallies, dtype=torch.float64).flatten()
        summed = [int(n) for n in self._sum(torch.cat([own, flags, by_source]))]
        samples, tokens, labels, images, skipped, stop, *rest = summed
        width = len(fields(Tally))
        found = {name: _tally(rest[n * width : (n + 1) * width]) for n, name in enumerate(sources)}
        return _Counts(
            samples=samples,
            tokens=tokens,
            labels=labels,
            images=images,
            skipped=skipped,
            stop=stop > 0,
            tallies={name: tally for name, tally in found.items() if tally.samples},
        )

    def _backward(
        self, microbatches: Sequence[Microbatch], sources: Sequence[str], totals: BatchTotals
    ) -> tuple[float, dict[str, float]]:
        """Add up the gradients of this process's microbatches, and average them over the processes.

        Returns: the batch's loss, and the part of each source in it.
        """
        device, world = self._device, self._accelerator.num_processes
        total = torch.zeros(1 + len(sources), dtype=torch.float64, device=device)
        for number, microbatch in enumerate(microbatches, start=1):
            last = number == len(microbatches)
            with self._placement.accumulating(last):
                loss, parts = self._losses(microbatch.to(device), totals)
                self._placement.backward(loss * world, last)  # the processes' gradients are averaged
                total[0] += loss.detach().double()
                for name, part in parts.items():
                    total[1 + sources.index(name)] += part.detach().double()
        whole, *rest = self._sum(total).tolist()
        return whole, dict(zip(sources, rest, strict=True))

    def _losses(self, microbatch: Microbatch, totals: BatchTotals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """A microbatch's share of the batch's loss, and of each source in it."""
        dtype = self._autocast
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
            return microbatch.losses(self._placement.model, totals)

    def _sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        summed: Tensor = self._accelerator.reduce(values.to(self._device), "sum")
        return summed

    def _gather(self, texts: Sequence[str]) -> list[str]:
        """The texts of all processes. All must call it."""
        from accelerate.utils import gather_object

        return list(gather_object(list(texts)))

    def _non_finite(
        self, step: int, what: str, value: float, microbatches: Sequence[Microbatch]
    ) -> NonFiniteUpdateError:
        ids = self._gather([name for microbatch in microbatches for name in microbatch.ids])
        return NonFiniteUpdateError(
            f"the {what} of update {step + 1} is {value}: nothing of it is kept, and the last checkpoint is whole. The "
            f"samples were {', '.join(ids)}. Look at them, lower TRAIN.LR (with RESUME True and TRAIN.ON_CHANGE "
            "continue), or leave such updates out with TRAIN.NON_FINITE skip"
        )


def _counts(microbatches: Sequence[Microbatch]) -> list[list[int]]:
    """Samples, tokens, learned tokens and images of each microbatch."""
    return [[len(p.ids), p.num_tokens, p.num_labels, p.num_images] for p in microbatches]


def _tally(counts: Sequence[int]) -> Tally:
    """The counts that `Tally.as_list` gave."""
    return Tally(**{one.name: count for one, count in zip(fields(Tally), counts, strict=True)})
