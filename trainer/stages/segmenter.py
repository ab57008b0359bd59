"""The panoptic segmenter itself: an X-Decoder, from nothing or going on from one, on COCO panoptic annotations.

Source: Zou et al. 2022 (arXiv 2212.11270); Cheng et al. 2022 (arXiv 2112.01527) for losses, augmentation and schedule.
"""

from __future__ import annotations

import torch

from ..config import TrainConfig
from .segmenter_job import SegmenterJob, load_segmenter


def load(config: TrainConfig, device: torch.device, *, alike: bool) -> SegmenterJob:
    """See `trainer.run.load_job`; the whole model is on every process, so microbatches need not be alike."""
    return load_segmenter(config, device)
