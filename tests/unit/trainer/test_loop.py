"""The loop with a model of one weight: what is skipped, counted and timed, and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.runtime.session import AgreedError
from trainer.config import LoopConfig
from trainer.loop import BatchShare, BatchTotals, NonFiniteUpdateError, Tally, TrainingLoop, Update
from trainer.parallel.placement import ReplicatedPlacement
from trainer.skipped import SkippedSamples

TRAIN = LoopConfig(LR=0.1, LR_END=0.1, WARMUP=0.0, CLIP=0.0)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Numbers:
    """A microbatch: the loss of each number is its distance to the model's weight, squared."""

    values: Mapping[str, Sequence[float]]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{name}{n}" for name, held in self.values.items() for n in range(len(held)))

    @property
    def num_tokens(self) -> int:
        return 2 * len(self.ids)

    @property
    def num_labels(self) -> int:
        return len(self.ids)

    @property
    def num_images(self) -> int:
        return 0

    @property
    def tallies(self) -> Mapping[str, Tally]:
        return {n: Tally(samples=len(v), tokens=2 * len(v), labels=len(v)) for n, v in self.values.items()}

    def to(self, device: torch.device) -> Numbers:
        return self

    def losses(self, model: nn.Module, totals: BatchTotals) -> tuple[Tensor, Mapping[str, Tensor]]:
        weight = model.get_parameter("weight")
        parts = {n: ((weight - torch.tensor(v)) ** 2).sum() / totals.labels for n, v in self.values.items()}
        return sum(parts.values(), torch.zeros(())), parts


class Data:
    sources = ("a", "b")

    def __init__(self, shares: Sequence[BatchShare], seconds: float = 0.0) -> None:
        self._shares, self._seconds = shares, seconds

    def adapter(self, step: int) -> str:
        return "all"

    def passes(self, step: int) -> Mapping[str, float]:
        return {}

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[BatchShare]:
        for step in range(start, stop):
            time.sleep(self._seconds)
            yield self._shares[step % len(self._shares)]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def run(
    accelerator: Accelerator, data: Data, train: LoopConfig = TRAIN, *, steps: int = 6, **more: Any
) -> tuple[list[Update], nn.Linear, int]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    placement = ReplicatedPlacement(
        accelerator, model, {"all": [dict(model.named_parameters())]}, lr=0.1, weight_decay=0.0
    )
    updates: list[Update] = []
    made = TrainingLoop(accelerator, placement, CPU, train, steps=steps, **more).run(data, 0, updates.append)
    return updates, model, made


SOUND = BatchShare([Numbers({"a": [2.0, 3.0]}), Numbers({"b": [5.0]})])


def test_losses_and_counts_are_those_of_the_sources(accelerator: Accelerator) -> None:
    updates, *_, made = run(accelerator, Data([SOUND]))
    first = updates[0]
    assert made == len(updates) == 6
    assert first.loss == pytest.approx((1 + 4 + 16) / 3)
    assert {n: (p.loss, p.tally.samples, p.tally.tokens) for n, p in first.sources.items()} == {
        "a": (pytest.approx(2.5), 2, 4),
        "b": (pytest.approx(16.0), 1, 2),
    }


def test_an_update_without_a_sample_is_an_error_that_names_them(accelerator: Accelerator) -> None:
    with pytest.raises(AgreedError, match="update 1 has nothing to learn from: .*\n  image 1.jpg is damaged"):
        run(accelerator, Data([BatchShare([Numbers({})], ["image 1.jpg is damaged"])]))


def test_too_many_skipped_samples_end_a_training_after_the_first_hundred() -> None:
    skipped = SkippedSamples(0.05, lambda reasons: list(reasons))
    for step in range(9):
        skipped.add(step, 9, 1, [f"no map {step}"])
    with pytest.raises(AgreedError, match=r"10 of 100 samples were skipped by update 10, more than .* 0\.05"):
        skipped.add(9, 9, 1, ["no map 9"])
    allowed = SkippedSamples(0.1, lambda reasons: list(reasons))
    for step in range(50):
        allowed.add(step, 9, 1, ["no map"])


def test_skipped_samples_are_counted(accelerator: Accelerator) -> None:
    updates, *_ = run(accelerator, Data([SOUND, replace(SOUND, skipped=("x",))]))
    assert [update.skipped for update in updates] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_no_number_ends_or_is_left_out(value: float, accelerator: Accelerator) -> None:
    data = Data([SOUND, BatchShare([Numbers({"a": [value]})]), SOUND])
    with pytest.raises(NonFiniteUpdateError, match=r"the loss of update 2 is .*The samples were a0\."):
        run(accelerator, data)
    updates, model, _ = run(accelerator, data, replace(TRAIN, NON_FINITE="skip"))
    assert [update.finite for update in updates] == [True, False, True, True, False, True]
    _, other, _ = run(accelerator, Data([SOUND]), steps=4)
    assert torch.equal(model.weight, other.weight)  # as if those updates had never been


@pytest.mark.slow
def test_an_update_takes_the_time_of_its_data_and_not_of_what_comes_between(accelerator: Accelerator) -> None:
    model = nn.Linear(1, 1, bias=False)
    placement = ReplicatedPlacement(
        accelerator, model, {"all": [dict(model.named_parameters())]}, lr=0.1, weight_decay=0.0
    )
    updates: list[Update] = []

    def slowly(update: Update) -> None:
        updates.append(update)
        time.sleep(0.5)  # an evaluation

    begun = time.perf_counter()
    TrainingLoop(accelerator, placement, CPU, TRAIN, steps=3).run(Data([SOUND], 0.02), 0, slowly)
    passed = time.perf_counter() - begun
    assert sum(update.seconds for update in updates) <= passed - 3 * 0.5
    assert all(update.seconds >= update.data_seconds >= 0.02 for update in updates)


def test_a_request_ends_it_before_the_next_update(accelerator: Accelerator) -> None:
    calls = iter([False, False, True])
    updates, _, made = run(accelerator, Data([SOUND]), stopped=lambda: next(calls))
    assert made == len(updates) == 2


def test_what_comes_between_may_end_it(accelerator: Accelerator) -> None:
    model = nn.Linear(1, 1, bias=False)
    placement = ReplicatedPlacement(
        accelerator, model, {"all": [dict(model.named_parameters())]}, lr=0.1, weight_decay=0.0
    )
    assert (
        TrainingLoop(accelerator, placement, CPU, TRAIN, steps=6).run(Data([SOUND]), 0, lambda update: update.step == 4)
        == 4
    )
