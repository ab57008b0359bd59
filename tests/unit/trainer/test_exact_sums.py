"""The gradient of an update is the same however its batch is cut up; in float64, where rounding is 1e-16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assets.tiny.world import write_lessons
from configs.load import REPOSITORY
from tests.tiny_training import settings
from trainer.config import read_training
from trainer.loop import BatchTotals
from trainer.parallel.trainable import train_only
from trainer.run import load_job
from trainer.stages.base import StageJob

pytestmark = pytest.mark.slow  # whole training runs

CPU = torch.device("cpu")
CUTS = [(1, 1), (1, 2), (2, 2), (7, 1)]
"""Processes, and samples at a time; seven processes have more than a batch of five has samples."""


def loaded(file: str, words: Sequence[object], size: int) -> StageJob:
    """A job in float64, as it is before its first update."""
    given = [str(word) for word in (*words, "TRAIN.STEPS", 4, "TRAIN.BATCH_SIZE_TOTAL", 5, "TRAIN.BATCH_SIZE", size)]
    job = load_job(read_training([REPOSITORY / "configs" / file], given)[0], CPU)
    job.model.double()
    job.train_mode()
    return job


def gradient(job: StageJob, step: int, world: int) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of an update, summed over the microbatches of all processes."""
    data: Any = job.data
    microbatches = [
        microbatch for rank in range(world) for microbatch in next(iter(data.batches(step, step + 1, rank, world)))
    ]
    totals = BatchTotals(samples=sum(len(p.ids) for p in microbatches), labels=sum(p.num_labels for p in microbatches))
    train_only(job.adapters[data.adapter(step)], job.model)
    job.model.zero_grad(set_to_none=True)
    loss = sum((microbatch.losses(job.model, totals)[0] for microbatch in microbatches), torch.zeros(()))
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in job.model.named_parameters() if p.grad is not None}


def check(file: str, words: Sequence[object]) -> None:
    """The whole batch at once against all cuts, for the first updates."""
    one, others = loaded(file, words, 5), {size: loaded(file, words, size) for _, size in CUTS}
    for step in range(2):
        loss, whole = gradient(one, step, 1)
        largest = max(float(value.abs().max()) for value in whole.values())
        assert whole and largest > 0
        for world, size in CUTS:
            other, cut = gradient(others[size], step, world)
            assert other == pytest.approx(loss, rel=1e-12)
            for name, value in whole.items():
                # elements that are zero in exact arithmetic have the rounding of what cancels in them
                torch.testing.assert_close(cut[name], value, rtol=1e-9, atol=1e-12 * largest)
            assert all(not value.any() for name, value in cut.items() if name not in whole)


def test_a_segmenters_gradient(tmp_path: Path) -> None:
    """Among others its points: where a mask is least certain, rounding must not choose."""
    write_lessons(tmp_path, seed=3, scenes=10, size=64)
    words = ("DATASETS.ROOT", tmp_path, "SAVE_DIR", tmp_path, "XDECODER.SIDE", 64, "XDECODER.TEMPLATES", 3)
    check("segmenter_xdecoder_tiny.yaml", (*words, "XDECODER.SCALE", "[0.5, 2.0]"))


@pytest.mark.parametrize("stage", ["cpt", "cit"])
def test_a_language_models_gradient(stage: str, tiny: Path, tmp_path: Path) -> None:
    check("collavo_tiny_train.yaml", settings(tiny, tmp_path, "TRAIN.STAGE", stage))
