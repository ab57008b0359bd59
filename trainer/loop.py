"""The training loop: the same for every stage.

An update takes one batch of the whole run. Every process takes its share, in small microbatches whose gradients add up,
and the loss is a mean over the whole batch (over its answer tokens, or its masks), wherever it is computed: neither the
number of processes nor the size of the microbatches changes what an update does, beyond rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import RunError

from .optimizer import FACTOR
from .parallel.placement import Placement
from .schedule import learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Numbers of a whole batch, over all processes.

    Attributes:
        samples: in it.
        labels: what the loss is a mean over: answer tokens, or masks; at least 1.
    """

    samples: int
    labels: int


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
        """Its part of `Totals.labels`."""

    @property
    def num_images(self) -> int:
        """Of the samples."""

    def to(self, device: torch.device) -> Microbatch:
        """The same on a device."""

    def loss(self, model: nn.Module, totals: Totals) -> Tensor:
        """Its share of the batch's loss, a scalar: those of all microbatches add up to it."""


class TrainingData(Protocol):
    """Where the batches of a run come from."""

    def adapter(self, step: int) -> str:
        """Which parameters a step trains, by name of a group."""

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[Sequence[Microbatch]]:
        """This process's share of each step's batch, from ``start`` on, in microbatches; prepared ahead."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a training run goes; see `trainer.config.LoopConfig` for each.

    Attributes:
        steps: updates in all.
        highest: learning rate.
        lowest: learning rate.
        warmup: share of the updates.
        clip: largest norm of the gradient; 0 for no limit.
        autocast: compute type of the forward pass; None for that of the weights.
    """

    steps: int
    highest: float
    lowest: float
    warmup: float
    clip: float
    autocast: torch.dtype | None = None


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
        seconds: it took.
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


class NonFiniteError(RunError):
    """The loss or the gradient is no number any more; the message names the samples."""


class Loop:
    """Trains a model.

    Args:
        accelerator: joins the processes.
        placement: the model in training mode, and its optimizer.
        device: of this process.
        settings: see `LoopSettings`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        placement: Placement,
        device: torch.device,
        settings: LoopSettings,
    ) -> None:
        self._accelerator, self._placement, self._device, self._settings = accelerator, placement, device, settings

    def run(self, data: TrainingData, start: int, done: Callable[[Update], None]) -> None:
        """Make all updates from one on.

        Args:
            data: see `TrainingData`.
            start: updates that are already made.
            done: called after every update, on every process.

        Raises:
            NonFiniteError: see there.
        """
        steps, rank, world = self._settings.steps, self._accelerator.process_index, self._accelerator.num_processes
        begun = time.perf_counter()
        for step, microbatches in enumerate(data.batches(start, steps, rank, world), start=start):
            update = self._update(step, data.adapter(step), microbatches, begun)
            begun = time.perf_counter()
            done(update)

    def _update(self, step: int, adapter: str, microbatches: Sequence[Microbatch], begun: float) -> Update:
        settings = self._settings
        rate = learning_rate(
            step, settings.steps, highest=settings.highest, lowest=settings.lowest, warmup=settings.warmup
        )
        for group in self._placement.optimizer.param_groups:
            group["lr"] = rate * group[FACTOR]
        counts = torch.tensor(_counts(microbatches), dtype=torch.float64).sum(0)
        samples, tokens, labels, images = (int(n) for n in self._sum(counts))
        self._placement.train(adapter, images=images > 0)
        loss = self._backward(
            microbatches, Totals(samples=samples, labels=max(1, labels))
        )  # none, if every sample of the batch was skipped
        if not math.isfinite(loss):
            raise self._non_finite(step, "loss", loss, microbatches)
        norm = self._placement.step(settings.clip)
        if not math.isfinite(norm):
            raise self._non_finite(step, "gradient", norm, microbatches)
        return Update(
            step=step + 1,
            adapter=adapter,
            loss=loss,
            norm=norm,
            rate=rate,
            samples=samples,
            tokens=tokens,
            labels=labels,
            seconds=time.perf_counter() - begun,
        )

    def _backward(self, microbatches: Sequence[Microbatch], totals: Totals) -> float:
        """Accumulate gradients over this process's microbatches, average over processes; return the batch's loss."""
        device, world = self._device, self._accelerator.num_processes
        total = torch.zeros(1, dtype=torch.float64, device=device)
        for number, microbatch in enumerate(microbatches, start=1):
            last = number == len(microbatches)
            with self._placement.adding_up(last):
                loss = self._loss(microbatch.to(device), totals)
                self._placement.backward(loss * world, last)  # the processes' gradients are averaged
                total += loss.detach().double()
        return float(self._sum(total))

    def _loss(self, microbatch: Microbatch, totals: Totals) -> Tensor:
        """A microbatch's share of the batch's loss."""
        dtype = self._settings.autocast
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
            return microbatch.loss(self._placement.model, totals)

    def _sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        summed: Tensor = self._accelerator.reduce(values.to(self._device), "sum")
        return summed

    def _non_finite(self, step: int, what: str, value: float, microbatches: Sequence[Microbatch]) -> NonFiniteError:
        from accelerate.utils import gather_object

        ids = gather_object([name for microbatch in microbatches for name in microbatch.ids])
        return NonFiniteError(
            f"the {what} of update {step + 1} is {value}: nothing of it is kept, and the last checkpoint is whole. The "
            f"samples were {', '.join(ids)}. Look at them, or lower TRAIN.LR"
        )


def _counts(microbatches: Sequence[Microbatch]) -> list[list[int]]:
    """Samples, tokens, learned tokens and images of each microbatch."""
    return [[len(p.ids), p.num_tokens, p.num_labels, p.num_images] for p in microbatches]
