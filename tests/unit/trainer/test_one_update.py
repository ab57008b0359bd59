"""One update on a model of two numbers: what it sums up, what moves, and what is kept from moving."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trainer.config import SHARED, LoopConfig
from trainer.loop import BatchShare, BatchTotals, NonFiniteUpdateError, Tally, TrainingLoop, Update
from trainer.optimizer import FACTOR, FROZEN, FrozenAwareAdamW
from trainer.parallel.placement import ReplicatedPlacement
from trainer.parallel.trainable import adapter_groups, train_only

CPU = torch.device("cpu")


class Alone:
    """What a loop needs of an `Accelerator` in a single process."""

    process_index, num_processes = 0, 1

    def prepare_model(self, model: nn.Module, device_placement: bool) -> nn.Module:
        return model

    def no_sync(self, model: nn.Module) -> Any:
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def reduce(self, values: Tensor, how: str) -> Tensor:
        return values


class Two(nn.Module):
    """Two numbers, one of which belongs to the crayon prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.crayon = nn.Linear(1, 1, bias=False)
        self.other = nn.Linear(1, 1, bias=False)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    @property
    def numbers(self) -> list[float]:
        return [float(parameter.detach()) for parameter in self.parameters()]


@dataclass(frozen=True)
class Labels:
    """A microbatch whose loss is a weighted sum of the two numbers, once for each label."""

    weights: tuple[float, ...]
    num_images: int = 1
    num_tokens: int = 5

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"sample {weight:g}" for weight in self.weights)

    @property
    def num_labels(self) -> int:
        return len(self.weights)

    def to(self, device: torch.device) -> Labels:
        return self

    @property
    def tallies(self) -> Mapping[str, Tally]:
        return {"drawn": Tally(samples=len(self.ids), tokens=self.num_tokens, labels=self.num_labels)}

    def losses(self, model: nn.Module, totals: BatchTotals) -> tuple[Tensor, Mapping[str, Tensor]]:
        two = cast(Two, model)
        loss = sum(self.weights) * (two.crayon.weight + 2 * two.other.weight).sum() / totals.labels
        return loss, {"drawn": loss}


@dataclass(frozen=True)
class Data:
    """The same microbatches at every step, for the one adapter there is."""

    microbatches: Sequence[Labels]
    sources = ("drawn",)

    def passes(self, step: int) -> Mapping[str, float]:
        return {}

    def adapter(self, step: int) -> str:
        return "both"

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[BatchShare]:
        return iter([BatchShare(self.microbatches)] * (stop - start))


def placed(model: Two, **settings: Any) -> ReplicatedPlacement:
    groups = [{name: parameter} for name, parameter in model.named_parameters()]
    accelerator = cast(Accelerator, Alone())
    return ReplicatedPlacement(
        accelerator, model, {"both": groups, "one": groups[1:]}, lr=0.1, weight_decay=0.0, **settings
    )


def run(
    *microbatches: Labels, steps: int = 1, clip: float = 0.0, **settings: Any
) -> tuple[Two, ReplicatedPlacement, list[Update]]:
    model = Two()
    placement, done = placed(model, **settings), list[Update]()
    train = LoopConfig(LR=0.1, LR_END=0.01, WARMUP=0.0, CLIP=clip)
    loop = TrainingLoop(cast(Accelerator, Alone()), placement, CPU, train, steps=steps)
    loop.run(cast(Any, Data(microbatches)), 0, done.append)
    return model, placement, done


def test_an_update_is_the_mean_over_the_batch_however_it_is_cut() -> None:
    whole, _, (one,) = run(Labels((1.0, 2.0, 6.0)))
    parts, _, (other,) = run(Labels((1.0,)), Labels((2.0, 6.0)))
    assert one.loss == other.loss == pytest.approx(3 * (1 + 2))  # the mean weight is 3, the numbers are 1
    assert one.norm == other.norm == pytest.approx(3 * math.hypot(1, 2))
    assert (one.samples, one.labels, one.tokens, other.tokens) == (3, 3, 5, 10)
    assert whole.numbers == parts.numbers != [1.0, 1.0]


def test_a_loss_that_is_no_number_is_named_with_its_samples_and_moves_nothing() -> None:
    model = Two()
    train = LoopConfig(LR=0.1, LR_END=0.1, WARMUP=0.0, CLIP=0.0)
    loop = TrainingLoop(cast(Accelerator, Alone()), placed(model), CPU, train, steps=1)
    with pytest.raises(NonFiniteUpdateError, match=r"the loss of update 1 is nan.*sample 1, sample nan"):
        loop.run(cast(Any, Data([Labels((1.0,)), Labels((math.nan,))])), 0, lambda update: None)
    assert model.numbers == [1.0, 1.0]


def test_each_group_has_its_share_of_the_rate() -> None:
    _, placement, (_, last) = run(
        Labels((1.0,)), steps=2, own=lambda group: {FACTOR: 0.25 if "other.weight" in group else 1.0}
    )
    assert last.rate == 0.01
    assert [group["lr"] for group in placement.optimizer.param_groups] == [0.01, 0.0025]


def test_a_batch_without_images_leaves_the_crayon_prompt_alone() -> None:
    model, _, (update,) = run(Labels((1.0,), num_images=0))
    assert model.numbers[0] == 1.0 != model.numbers[1]
    assert update.norm == pytest.approx(2.0)  # of what moves alone
    assert run(Labels((1.0,), num_images=1))[0].numbers[0] != 1.0


def test_gradients_are_clipped_and_infinite_ones_make_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Two()
    placement, seen = placed(model), list[float]()

    def noted() -> None:
        seen.append(math.hypot(*(float(p.grad.sum()) for p in model.parameters() if p.grad is not None)))

    monkeypatch.setattr(placement.optimizer, "step", noted)
    for clip, expected in ((0.0, 50.0), (2.0, 2.0), (80.0, 50.0)):
        placement.train("both", images=True)
        (30 * model.crayon.weight + 40 * model.other.weight).sum().backward()
        assert placement.step(clip) == pytest.approx(50.0)
        assert seen.pop() == pytest.approx(expected, rel=1e-5)
    placement.train("both", images=True)
    (math.inf * model.crayon.weight).sum().backward()
    assert not math.isfinite(placement.step(1.0))
    assert seen == [] and all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_group_is_not_stepped_although_it_has_a_gradient() -> None:
    first, second = (nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = FrozenAwareAdamW([{"first": first}, {"second": second}], lr=0.1, weight_decay=0.1)
    optimizer.param_groups[1][FROZEN] = False
    first.grad, second.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert float(first) == 1.0 != float(second)  # weight decay alone moves what is not frozen
    assert first not in optimizer.state and len(optimizer.param_groups) == 2


def test_a_step_trains_what_is_named_and_nothing_else() -> None:
    model = Two()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    train_only([{"other.weight": model.other.get_parameter("weight")}], model)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True]
    assert model.crayon.weight.grad is None and model.other.weight.grad is not None


@dataclass(frozen=True)
class Named:
    """Adapters by name, a parameter each."""

    names: tuple[str, ...]

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        return {f"other.lora_A.{name}.weight": nn.Parameter(torch.ones(1))}


@pytest.mark.parametrize("names", [("image_cit", "vl_cit"), ("vl_cit",), (SHARED,)])
def test_each_adapter_is_trained_with_the_crayon_prompt_unless_that_is_off(names: tuple[str, ...]) -> None:
    model, adapters = cast(Any, Two()), cast(Any, Named(names))
    for crayon in ("both", "semantic", "none"):
        found = adapter_groups(model, adapters, crayon)
        assert set(found) == ({"image_cit", "vl_cit"} if names == (SHARED,) else set(names))
        for name, parts in found.items():
            trained = {key for part in parts for key in part}
            own = f"other.lora_A.{SHARED if names == (SHARED,) else name}.weight"
            assert trained == {own} | (set() if crayon == "none" else {"crayon.weight"})
