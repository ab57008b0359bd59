"""The held-out loss: computed by all processes together, under every sharding, and by source.

Nothing of a training run depends on it: the model answers in evaluation mode, so that no dropout is drawn, and
instructions are the same in every validation.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from configs.common.safe_json import read_json
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import make_folder, write_json

from .loop import BatchShare, BatchTotals
from .parallel.placement import Placement

if TYPE_CHECKING:
    from accelerate import Accelerator

FILE = "validation.json"


class HeldOutData(Protocol):
    """What the held-out loss is computed on."""

    @property
    def sources(self) -> Sequence[str]:
        """Names of the sources, in the same order on every process."""

    def shares(self, rank: int, world: int) -> Iterator[BatchShare]:
        """A process's share of every batch, the same each time."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A held-out loss.

    Attributes:
        step: updates made.
        loss: mean over all labels.
        sources: the same of each source.
        labels: that it is a mean over.
        skipped: samples that could not be used.
    """

    step: int
    loss: float
    sources: Mapping[str, float]
    labels: int
    skipped: int = 0


def validate(
    data: HeldOutData,
    placement: Placement,
    accelerator: Accelerator,
    device: torch.device,
    step: int,
    autocast: torch.dtype | None,
) -> Validation:
    """Compute the held-out loss. All processes must call it.

    Args:
        data: see `HeldOutData`.
        placement: the model.
        accelerator: joins the processes.
        device: of this process.
        step: updates made.
        autocast: compute type of the forward pass; None for that of the weights.

    Raises:
        RunError: nothing of it can be used.
    """
    names = list(data.sources)
    sums = torch.zeros(len(names), 2, dtype=torch.float64, device=device)  # loss and labels of each source
    skipped = 0
    with _evaluating(placement.model), torch.no_grad():
        for share in data.shares(accelerator.process_index, accelerator.num_processes):
            skipped += len(share.skipped)
            for microbatch in share.microbatches:
                with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                    _, losses = microbatch.to(device).losses(
                        placement.inference_model, BatchTotals(samples=1, labels=1)
                    )
                for name, loss in losses.items():
                    sums[names.index(name), 0] += loss.double()
                    sums[names.index(name), 1] += microbatch.tallies[name].labels
    counted = torch.cat([sums.flatten(), torch.tensor([skipped], dtype=torch.float64, device=device)])
    *found, skips = accelerator.reduce(counted, "sum").tolist()
    losses_of, labels_of = found[::2], found[1::2]
    if not sum(labels_of):
        raise RunError("DATA.VALIDATION: none of the held-out samples can be used; see the warnings above")
    return Validation(
        step=step,
        loss=sum(losses_of) / sum(labels_of),
        sources={n: loss / labels for n, loss, labels in zip(names, losses_of, labels_of, strict=True) if labels},
        labels=int(sum(labels_of)),
        skipped=int(skips),
    )


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(kw_only=True)
class LossHistory:
    """All held-out losses of a training run.

    Attributes:
        validations: in the order of the updates.
    """

    validations: list[Validation] = field(default_factory=list)

    @classmethod
    def read(cls, save_dir: Path, start: int) -> LossHistory:
        """Those of an earlier attempt, up to the update that it goes on from.

        Raises:
            RunError: the file is damaged.
        """
        file = save_dir / FILE
        if not file.exists():
            return cls()
        try:
            kept = [Validation(**item) for item in read_json(file)["validations"]]
            return cls(validations=[one for one in kept if one.step <= start])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{file}: cannot be read ({error}); remove it to go on without earlier validations"
            ) from None

    def write(self, save_dir: Path) -> None:
        """Keep them next to the log."""
        make_folder(save_dir)
        best = self.best
        values = {"best": None if best is None else best.step, "validations": [asdict(v) for v in self.validations]}
        write_json(save_dir / FILE, values)

    @property
    def best(self) -> Validation | None:
        """The first with the lowest loss."""
        numbers = [one for one in self.validations if math.isfinite(one.loss)]
        return min(numbers, key=lambda one: one.loss, default=None)

    @property
    def since_best(self) -> int:
        """How many came after the best one."""
        best = self.best
        return sum(one.step > best.step for one in self.validations) if best is not None else 0
