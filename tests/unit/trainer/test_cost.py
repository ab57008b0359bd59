"""Floating-point operations of an update, against torch's own counter on what really runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from assets.tiny.world import write_lessons
from configs.load import REPOSITORY
from tests.tiny_training import make_world_and_checkpoint
from tests.unit.trainer.test_updates import configured
from trainer.config import read_training
from trainer.loop import BatchTotals, SourceUpdate, Update
from trainer.parallel.trainable import train_only
from trainer.run import load_job


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    make_world_and_checkpoint(folder)
    config = folder / "checkpoint" / "config.json"  # with dropout every image token passes the crayon pairs
    config.write_text(config.read_text().replace('"plora_dropout": 0.0', '"plora_dropout": 0.05'))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("cpt", ()),
        ("cpt", ("TRAIN.PARTS", "[queries, projector, tower]")),
        ("cit", ("TRAIN.PARTS", "[queries, projector]", "LORA.RANKS", "{vl_cit: 2}")),
        ("cit", ("TRAIN.CRAYON", "none", "LORA.TARGETS", "[w2]")),
        ("cit", ("TRAIN.ADAPTERS", "shared", "TRAIN.PARTS", "[tower]")),
    ],
)
def test_products_are_those_that_torch_counts(stage: str, more: tuple[Any, ...], tiny: Path, tmp_path: Path) -> None:
    """Exactly, but for the MLP of the crayon prompt; plain attention computes what the mask hides, too."""
    given = ("TRAIN.STAGE", stage, "TRAIN.BATCH_SIZE", 1, "LLM.ATTENTION", "eager", "TRAIN.STEPS", 6)
    job: Any = load_job(configured(tiny, tmp_path, *given, *more), torch.device("cpu"))
    model = job.model.train()
    model.vision_tower.eval()
    seen = set()
    for step, share in enumerate(job.data.batches(0, 6, 0, 1)):
        adapter, (batch, *_) = job.data.adapter(step), share
        images = bool(batch.num_images)
        if (adapter, images) in seen:
            continue
        seen.add((adapter, images))
        train_only(job.adapters[adapter], model)
        with FlopCounterMode(display=False) as counter:
            batch.losses(model, BatchTotals(samples=1, labels=1))[0].backward()
        whole, mlp = counter.get_total_flops(), 0
        if images and "none" not in more:
            distinct = set(zip(batch.semantic.flatten().tolist(), batch.numbering.flatten().tolist(), strict=True))
            passes = 3 if model.crayon.semantic.weight.requires_grad else 1
            mlp = (
                2 * passes * len(distinct) * sum(p.numel() for p in model.crayon.projector.parameters() if p.dim() > 1)
            )
        assert counted(job, adapter, batch, 2) == whole - mlp
        assert counted(job, adapter, batch, 1) < whole - mlp
    assert {adapter for adapter, _ in seen} == set(job.adapters)


def counted(job: Any, adapter: str, batch: Any, pairs: int) -> float:
    """Operations of one microbatch, with so many times the pairs of tokens that the mask leaves."""
    sources = {
        name: SourceUpdate(loss=0.0, tally=replace(tally, squares=pairs * tally.squares))
        for name, tally in batch.tallies.items()
    }
    update = Update(
        step=1, adapter=adapter, loss=0.0, norm=0.0, rate=0.0, samples=1, tokens=0, labels=0, seconds=1, sources=sources
    )
    return float(job.flops(update))


@pytest.mark.slow
@pytest.mark.parametrize("text_trains", [True, False])
def test_a_segmenters_products_are_those_that_torch_counts(text_trains: bool, tmp_path: Path) -> None:
    """To half a percent: what matches queries and segments is left out, and prompts are shorter than the longest."""
    write_lessons(tmp_path, seed=3, scenes=4, size=64)
    words: list[object] = ["DATASETS.ROOT", tmp_path, "SAVE_DIR", tmp_path, "XDECODER.SIDE", 64]
    words += ["XDECODER.TRAIN_TEXT", text_trains, "TRAIN.BATCH_SIZE_TOTAL", 2, "TRAIN.BATCH_SIZE", 2, "TRAIN.STEPS", 1]
    config, _ = read_training([REPOSITORY / "configs/segmenter_xdecoder_tiny.yaml"], [str(word) for word in words])
    job: Any = load_job(config, torch.device("cpu"))
    (batch,) = next(iter(job.data.batches(0, 1, 0, 1)))
    train_only(job.adapters[job.data.adapter(0)], job.model.train())
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # no other is counted on a CPU
        batch.losses(job.model, BatchTotals(samples=2, labels=batch.num_labels))[0].backward()
    update = Update(
        step=1, adapter="segmenter", loss=0.0, norm=0.0, rate=0.0, samples=2, tokens=0, labels=0, seconds=1, sources={}
    )
    assert job.flops(update) == pytest.approx(counter.get_total_flops(), rel=5e-3)
