"""The stages by the names that ``TRAIN.STAGE`` takes. A new stage is a module here and a line in `STAGES`."""

from __future__ import annotations

from typing import Protocol

import torch

from ..config import TrainConfig
from .base import StageJob
from .cit import load_cit
from .cpt import load_cpt
from .segmenter import load_segmenter_stage


class LoadStage(Protocol):
    """Loads a stage: its model, its data, and what its checkpoints hold."""

    def __call__(self, config: TrainConfig, device: torch.device, *, alike: bool) -> StageJob:
        """See `trainer.run.load_job`."""


STAGES: dict[str, LoadStage] = {"cpt": load_cpt, "cit": load_cit, "segmenter": load_segmenter_stage}
