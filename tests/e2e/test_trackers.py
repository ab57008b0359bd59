"""Figures of a training run reach Weights & Biases and TensorBoard through Accelerate."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from assets.tiny.random_checkpoint import make_tiny
from assets.tiny.world import write_world
from configs.load import REPOSITORY
from tests.warm import run_warm
from trainer.check import check
from trainer.config import read_training


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    write_world(folder / "data", seed=0, scenes=6, size=112)
    make_tiny(folder / "checkpoint", seed=0)
    return folder


def words(tiny: Path, save: Path, *more: str) -> list[str]:
    maps = tiny / "data" / "coco_panoptic" / "panoptic_val"
    given = ["RESUME_FROM", tiny / "checkpoint", "DATASETS.ROOT", tiny / "data", "SAVE_DIR", save]
    given += ["SEGMENTER.PATH", f"{maps}.json", "SEGMENTER.IMAGES", maps, "TRAIN.STEPS", 3, "TRAIN.LOG_EVERY", 1]
    return ["--conf_files", "configs/collavo_tiny_train.yaml", "--overrides", *map(str, given), *more]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_both_trackers_get_every_figure(tiny: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    command = [
        "lbk_entry.py",
        "train",
        *words(tiny, tmp_path, "WANDB", "True", "TRAIN.TENSORBOARD", "True"),
    ]
    done = run_warm(command, env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.rglob("run-*.wandb"))
    held = [EventAccumulator(str(events)).Reload() for events in tmp_path.rglob("events.out.tfevents.*")]
    (scalars,) = [one for one in held if "loss" in one.Tags()["scalars"]]  # settings have a file of their own
    assert {"learning_rate", "samples_per_second", "tokens_per_second"} <= set(scalars.Tags()["scalars"])
    assert [event.step for event in scalars.Scalars("loss")] == [1, 2, 3]


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_loaded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(REPOSITORY)
    config, catalog = read_training(*_split(words(tiny, tmp_path, "TRAIN.TENSORBOARD", "True")))
    with pytest.raises(Exception, match="TRAIN.TENSORBOARD True needs the package tensorboard"):
        check(config, catalog)


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    place = given.index("--overrides")
    return given[1:place], given[place + 1 :]
