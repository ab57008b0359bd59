"""Training of the segmenter through the entry: what it leaves is a segmenter; going on, and several processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from assets.tiny.train.segmenter import ship
from assets.tiny.world import write_lessons
from modeling.image import DecodedImage
from modeling.segmenters import build_segmenter
from modeling.segmenters.options import SegmenterConfig
from modeling.segmenters.xdecoder.checkpoint import load_model
from tests.e2e.test_training import losses
from tests.limits import free_port
from tests.tiny_training import STEP
from tests.warm import run_warm

FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_lessons(folder, seed=3, scenes=10, size=64)
    return folder


CONFIG = "configs/segmenter_xdecoder_tiny.yaml"
ENTRY = ("lbk_entry.py", "train", "--conf_files", CONFIG, "--overrides")
IN_FLOAT64 = ("-m", "tests.e2e.float64", CONFIG)


def run(
    num: int, scenes: Path, save: Path, *more: object, entry: tuple[str, ...] = ENTRY
) -> subprocess.CompletedProcess[str]:
    """Train; on one process without a launcher."""
    values: tuple[object, ...] = (
        *("DATASETS.ROOT", scenes, "SAVE_DIR", save, "TRAIN.LOG_EVERY", 1, "TRAIN.SAVE_EVERY", 2, "TRAIN.KEEP", 9),
        *("TRAIN.STEPS", 4, "TRAIN.BATCH_SIZE_TOTAL", 4, "XDECODER.SIDE", 64, "XDECODER.TEMPLATES", 3),
    )
    words = [*entry, *(str(word) for word in (*values, *more))]
    if num == 1:
        return run_warm(words)
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    launcher = ["-m", "accelerate.commands.launch", "--config_file", "configs/accel/cpu_accel.yaml"]
    launcher += ["--num_processes", str(num), "--main_process_port", str(free_port())]
    env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return run_warm([*launcher, *words], env)


def train(num: int, scenes: Path, save: Path, *more: object, entry: tuple[str, ...] = ENTRY) -> str:
    done = run(num, scenes, save, *more, entry=entry)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def refused(scenes: Path, save: Path, *more: object) -> str:
    done = run(1, scenes, save, *more)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def straight(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = tmp_path_factory.mktemp("straight")
    said = train(1, scenes, save)
    assert "10 images; 0 skipped" in said and "on 21 classes" in said
    return save


def test_a_checkpoint_is_a_segmenter_also_in_half_precision(straight: Path, scenes: Path, tmp_path: Path) -> None:
    checkpoint = straight / STEP.format(4)
    first = sorted((scenes / "coco" / "train2017").iterdir())[0]
    image = DecodedImage(np.asarray(Image.open(first).convert("RGB")), first.name)
    ship(checkpoint, tmp_path / "shipped")
    for folder in (checkpoint, tmp_path / "shipped"):
        settings = SegmenterConfig(NAME="xdecoder", PATH=str(folder), SHORT_SIDE=64, THRESHOLD=0.0, MASK_THRESHOLD=0.0)
        segmenter = build_segmenter(settings)
        (found,) = segmenter.segment([image], (35, 35))
        assert found.id_map.shape == (35, 35)
        assert load_model(folder).kept is not None, "the embeddings belong to the text encoder next to them"
        one = SegmenterConfig(NAME="xdecoder", PATH=str(folder), CLASSES=["dog", "grass"], SHORT_SIDE=64)
        assert len(build_segmenter(one).categories) == 2
    assert (tmp_path / "shipped" / "model.safetensors").stat().st_size < 4e6


def test_going_on_is_bit_for_bit_the_same(straight: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "on")
    shutil.rmtree(tmp_path / "on" / STEP.format(4))
    assert "RESUME True goes on from there" in refused(scenes, tmp_path / "on")
    assert "XDECODER.NO_OBJECT: 0.1 -> 0.2" in refused(
        scenes, tmp_path / "on", "RESUME", True, "XDECODER.NO_OBJECT", 0.2
    )
    train(1, scenes, tmp_path / "on", "RESUME", True)
    for file in FILES:
        assert (tmp_path / "on" / STEP.format(4) / file).read_bytes() == (straight / STEP.format(4) / file).read_bytes()
    kept = (load_file(f / STEP.format(4) / "class_embeddings.safetensors") for f in (tmp_path / "on", straight))
    assert torch.equal(*(tensors["class_embeddings"] for tensors in kept))
    assert losses(tmp_path / "on") == losses(straight)


def rows(save: Path, *names: str) -> list[float]:
    """Figures of all updates."""
    logged = [json.loads(line) for line in (save / "log.jsonl").read_text().splitlines()]
    return [row[name] for row in logged for name in names]


def test_two_processes_and_other_microbatches_learn_the_same(scenes: Path, tmp_path: Path) -> None:
    """In float64, where four updates still agree to 1e-15; in float32 rounding picks other points (see float64.py)."""
    train(1, scenes, tmp_path / "one", entry=IN_FLOAT64)
    train(2, scenes, tmp_path / "two", "TRAIN.BATCH_SIZE", 1, entry=IN_FLOAT64)
    one, two = (rows(tmp_path / save, "loss", "gradient_norm", "masks") for save in ("one", "two"))
    assert len(one) == 12 and two == pytest.approx(one, rel=1e-10)


def test_two_processes_share_a_batch_in_float32(straight: Path, scenes: Path, tmp_path: Path) -> None:
    """The first update alone is compared, by what one point of 256 of one mask can do to it; see the test above."""
    train(2, scenes, tmp_path / "two", "TRAIN.BATCH_SIZE", 1)
    assert rows(tmp_path / "two", "masks", "samples") == rows(straight, "masks", "samples")
    assert losses(tmp_path / "two")[0] == pytest.approx(losses(straight)[0], rel=1e-4)


def test_a_training_goes_on_from_a_segmenter_and_the_text_encoder_can_be_frozen(
    straight: Path, scenes: Path, tmp_path: Path
) -> None:
    below = straight / STEP.format(4)
    more = ("RESUME_FROM", below, "XDECODER.SIZES", "{}", "XDECODER.TRAIN_TEXT", False, "TRAIN.STEPS", 2)
    train(1, scenes, tmp_path, *more)
    before, after = (load_file(f / "model.safetensors") for f in (below, tmp_path / STEP.format(2)))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and not any(key.startswith("text_encoder.") for key in moved)
    assert any(key.startswith("backbone.") for key in moved)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(
    straight: Path, scenes: Path, tmp_path: Path
) -> None:
    shutil.copytree(straight, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / STEP.format(4))
    kept = tmp_path / "out" / STEP.format(2)
    tensors = load_file(kept / "model.safetensors")
    tensors["decoder.head.logit_scale"].fill_(3e38)  # finite: a NaN would be refused with the checkpoint
    save_file(tensors, kept / "model.safetensors")
    said = refused(scenes, tmp_path / "out", "RESUME", True)
    assert "the loss of update 3 is nan" in said and ".jpg" in said
    assert not (tmp_path / "out" / STEP.format(4)).exists()


def test_mistakes_and_malformed_records_are_explained(scenes: Path, tmp_path: Path) -> None:
    assert "XDECODER.SIDE: must be a multiple of 32, got 100" in refused(scenes, tmp_path, "XDECODER.SIDE", 100)
    assert "RESUME_FROM: nowhere does not exist" in refused(scenes, tmp_path, "RESUME_FROM", "nowhere")
    said = refused(scenes, tmp_path, "XDECODER.SIZES", "{decodr: {num_queries: 3}}")
    assert "XDECODER.SIZES: unknown key 'decodr'; did you mean decoder" in said
    assert "ConfigError" not in said
    root = tmp_path / "world"
    shutil.copytree(scenes, root)
    file = root / "coco" / "annotations" / "panoptic_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][2]["segments_info"][0]["category_id"] = 999
    (root / "coco" / "annotations" / "panoptic_train2017" / content["annotations"][5]["file_name"]).write_bytes(b"no")
    file.write_text(json.dumps(content))
    said = train(1, root, tmp_path / "out")
    assert "9 images; 0 skipped, they are missing; 1 malformed records skipped" in said
    assert "annotations 2: classes [999] are not among the file's categories" in said
    assert "an image is skipped" in said
