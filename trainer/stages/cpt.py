"""Step 1, crayon prompt tuning: the queries, MLP and low-rank pairs learn to tell objects apart; all else is frozen.

Source: CoLLaVO (arXiv 2402.11248), section 3.2: crayon instructions made from COCO 2017 panoptic annotations.
"""

from __future__ import annotations

import torch

from collavo.instructions import CRAYON_KINDS

from ..config import TrainConfig
from ..data.samples import Preparation
from ..data.sources import StageData, crayon_instructions, join_sources
from ..parallel.trainable import CRAYON
from .tuning import TuningJob, load_tuning


def sources(config: TrainConfig, preparation: Preparation, device: torch.device) -> StageData:
    """Crayon instructions alone."""
    return join_sources({CRAYON: crayon_instructions(config, preparation, CRAYON_KINDS)})


def load_cpt(config: TrainConfig, device: torch.device, *, alike: bool) -> TuningJob:
    """See `trainer.run.load_job`."""
    return load_tuning(config, device, (), sources, alike=alike)
