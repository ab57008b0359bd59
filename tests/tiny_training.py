"""What tests of training start from: a small world, a tiny checkpoint, and the settings that name them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assets.tiny.random_checkpoint import make_tiny
from assets.tiny.world import write_world

STEP = "checkpoints/step-{:08d}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world and a checkpoint without dropout, whose draws would differ from process to process."""
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder / "data", seed=0, scenes=12, size=112)
    make_tiny(folder / "checkpoint", seed=0)
    config = folder / "checkpoint" / "config.json"
    config.write_text(re.sub(r'"plora_dropout": [\d.]+', '"plora_dropout": 0.0', config.read_text()))
    return folder


def settings(tiny: Path, save: Path, *more: object) -> list[str]:
    data, maps = tiny / "data", tiny / "data" / "coco_panoptic" / "panoptic_val"
    values: dict[str, object] = {
        "RESUME_FROM": tiny / "checkpoint",
        "DATASETS.ROOT": data,
        "SEGMENTER.PATH": f"{maps}.json",
        "SEGMENTER.IMAGES": maps,
        "DATA.CONVERSATIONS": f"[{{FILE: {data}/LLaVA/tiny_instruct.json, IMAGES: {data}}}]",
        "SAVE_DIR": save,
        "LORA.R": 4,
        "LORA.ALPHA": 4,
        "TRAIN.LOG_EVERY": 1,
    }
    return [str(part) for pair in values.items() for part in pair] + [str(part) for part in more]
