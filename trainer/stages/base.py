"""What a stage brings to a training run; the rest of `trainer.run` is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from ..held_out import HeldOutData
from ..loop import TrainingData, Update
from ..parallel.placement import Placement
from ..parallel.trainable import Parameters

if TYPE_CHECKING:
    from pipeline.run.plan import Plan
    from pipeline.runtime.session import Session


class StageJob(Protocol):
    """A stage that is loaded.

    Attributes:
        model: the whole model, unwrapped.
        adapters: what an update of each adapter trains; see `trainer.parallel.trainable.adapter_groups`.
        data: its batches.
        steps: updates in all.
        autocast: compute type of the forward pass; None for that of the weights.
        labels: what the loss is a mean over, in words.
        held_out: what the held-out loss is computed on; None for nothing.
        image_tokens: that an image stands for; 0 where there are none.
    """

    model: nn.Module
    adapters: Mapping[str, Sequence[Parameters]]
    data: TrainingData
    steps: int
    autocast: torch.dtype | None
    labels: str
    held_out: HeldOutData | None
    image_tokens: int

    def resume_settings(self) -> Mapping[str, Any]:
        """What a continuation must have in common with what it continues, by name, as JSON has it."""

    def read_progress(self, folder: Path) -> tuple[int, Mapping[str, Any]]:
        """The updates that a checkpoint has, and the `resume_settings` of its training run.

        Raises:
            CheckpointError: it is no checkpoint of such a stage.
        """

    def load_weights(self, folder: Path) -> None:
        """Load the weights of a checkpoint."""

    def train_mode(self) -> None:
        """Put the model into training mode."""

    def group_settings(self, group: Parameters) -> Mapping[str, Any]:
        """See `trainer.optimizer.GroupSettings`."""

    def checkpoint_writer(self, placement: Placement, step: int) -> Callable[[Path], None]:
        """What writes what is trained into a checkpoint's folder. All processes must call it, one writes."""

    def describe(self, moving: Parameters) -> str:
        """A line on what is trained, and on what."""

    def memory_in_words(self, processes: int, there: int) -> str:
        """What an update takes of a GPU, next to what is there; "" where it is not counted.

        Args:
            processes: over which DDP averages gradients.
            there: bytes of the GPU.
        """

    def flops(self, update: Update) -> float | None:
        """Floating-point operations that an update needs, over all processes; None where they are not counted."""

    def evaluate(self, plan: Plan, session: Session, step: int) -> None:
        """Evaluate the benchmarks of the plan with the model as it is."""
