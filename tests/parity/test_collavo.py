"""Parity of the model with the reference, on the golden data and past its tolerances."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import fixture_dir
from tests.parity import collavo
from tests.parity.collavo import compare


def run(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["collavo", str(directory)])
    return collavo.main()


def test_everything_is_within_its_tolerance() -> None:
    differences = list(compare(fixture_dir("collavo")))
    assert [d for d in differences if not d.ok] == []
    quantities = {d.quantity.split(".")[0].split(" ")[0] for d in differences}
    assert {"plora", "pixel_values", "vision_features", "eager", "sdpa", "generate", "keys_7b", "crayon"} <= quantities


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("tiny/prefill.safetensors", "logits"),
        ("tiny/prefill.safetensors", "hidden_states"),
        ("plora.safetensors", "y_crayon"),
        ("tiny/model.safetensors", "vision_proj_for_seg.2.bias"),
    ],
)
def test_a_wrong_number_is_noticed(
    file: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command exits 1 when golden data and ours differ by a thousandth."""
    directory = tmp_path / "golden"
    shutil.copytree(fixture_dir("collavo"), directory)
    for path in directory.rglob("*"):
        path.chmod(0o755)
    tensors = load_file(directory / file)
    tensors[key] = tensors[key] + 1e-3 * torch.ones_like(tensors[key])
    save_file(tensors, directory / file)
    assert run(directory, monkeypatch) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_folder_without_golden_data_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch) == 2
    assert "no golden data of CoLLaVO" in capsys.readouterr().err
