"""The parity command of X-Decoder: agrees on the golden data, and notices a wrong number of every kind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import fixture_dir
from tests.parity import xdecoder


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy that may be changed."""
    source, directory = fixture_dir("xdecoder"), tmp_path / "golden"
    for file in source.rglob("*"):
        if file.is_file():
            copy = directory / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return directory


def run(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["xdecoder", str(directory)])
    return xdecoder.main()


def test_the_command_agrees_and_names_what_a_set_lacks(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in xdecoder.FULL_SIZE_TABLES:
        (golden / name).unlink()
    assert run(golden, monkeypatch) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} is not there: not compared" in shown for name in xdecoder.FULL_SIZE_TABLES)
    assert "all within the tolerances" in shown


def test_a_folder_without_golden_data_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch) == 2
    assert "no golden data of X-Decoder" in capsys.readouterr().err


FALSIFIED = [
    ("position.safetensors", "", "position."),
    ("backbone_plain.safetensors", "res4", "backbone_plain.res4"),
    ("blocks.safetensors", "y", "block"),
    ("text.safetensors", "probe.hidden", "text.hidden"),
    ("text.safetensors", "class_embeddings", "text.class_embeddings"),
    ("mask_resize.safetensors", "out", "mask_resize."),
    ("preprocess.safetensors", "input", "preprocess."),
    ("tiny/forward.safetensors", "img0/mask_features", "img0/mask_features"),
    ("tiny/forward.safetensors", "img1/layer2.logits", "img1/layer2.logits"),
    ("tiny/forward.safetensors", "batch/pred_masks", "batch/pred_masks"),
]
"""A file, how the key of a tensor in it begins or ends, and how the quantity that must fail begins."""


@pytest.mark.parametrize(("file", "key", "quantity"), FALSIFIED)
def test_a_wrong_number_is_noticed(
    file: str,
    key: str,
    quantity: str,
    golden: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One element, moved by twice the widest tolerance."""
    tensors = load_file(golden / file)
    name = next(name for name in tensors if name.startswith(key) or name.endswith("." + key))
    tensors[name].view(-1)[-1] += 2e-3
    save_file(tensors, golden / file)
    assert run(golden, monkeypatch) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("FAILED")]
    assert any(line.startswith(quantity) for line in failed), failed


def test_a_wrong_pixel_and_a_wrong_class_are_noticed(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = dict(np.load(golden / "tiny" / "panoptic.npz"))
    cases = json.loads((golden / "tiny" / "panoptic.json").read_text())
    pixel, wrong = (
        next(case for case in cases if case["run"] == run and case["segments_info"]) for run in ("img0", "img1")
    )
    maps[pixel["key"]][0, 0] += 1
    np.savez(golden / "tiny" / "panoptic.npz", **maps)
    wrong["segments_info"][0]["category_id"] += 1
    (golden / "tiny" / "panoptic.json").write_text(json.dumps(cases))
    assert run(golden, monkeypatch) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("FAILED")]
    assert any(line.startswith(f"segmenter.{pixel['key']} (pixels unequal)") for line in failed)
    assert any(line.startswith(f"segmenter.{wrong['key']} (segments unequal)") for line in failed)


def test_a_wrong_weight_is_noticed(
    golden: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = golden / "tiny" / "model.safetensors"
    tensors = load_file(file)
    with torch.no_grad():
        tensors["sem_seg_head.predictor.class_embed"] *= 1.01
    save_file(tensors, file)
    assert run(golden, monkeypatch) == 1
    assert "FAILED" in capsys.readouterr().out
