"""A checkpoint that overflows through the whole command: no finished run at 0 % with exit code 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from assets.tiny.random_checkpoint import make_tiny
from assets.tiny.world import write_world
from pipeline.commands.cli import main


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world, and a checkpoint one of whose norms is too large for what follows."""
    folder = tmp_path_factory.mktemp("broken")
    make_tiny(folder / "checkpoint", seed=0)
    tensors = load_file(folder / "checkpoint" / "model.safetensors")
    tensors["language_model.layers.1.mlp_norm.weight"] *= 1e38
    save_file(tensors, folder / "checkpoint" / "model.safetensors", {"format": "pt"})
    write_world(folder / "data", seed=0, scenes=4, size=112)
    return folder


@pytest.mark.parametrize("beams", [1, 3])
def test_a_run_without_a_finite_score_fails_and_says_why(
    broken: Path, tmp_path: Path, beams: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        **{"DATASETS.TEST": "pope_test,mme", "DATASETS.ROOT": broken / "data", "EVAL.LIMIT": 6},
        **{"RESUME_FROM": broken / "checkpoint", "LLM.BITS": 32, "LLM.DTYPE": "fp32", "SEGMENTER.NAME": "none"},
        **{"SAVE_DIR": tmp_path, "POPE.TEST.NUM_BEAMS": beams, "MME.TEST.NUM_BEAMS": beams},
    }
    assert main(["eval", "--overrides", *(str(word) for pair in settings.items() for word in pair)]) == 1
    said = capsys.readouterr().err
    for name in ("pope_test", "mme"):
        assert f"{name}: none of its 6 questions has an answer, nothing is scored" in said
        assert not (tmp_path / name / "results.json").exists()
        (journal,) = (tmp_path / name / "journal").glob("*.jsonl")
        assert all("not finite" in json.loads(line)["error"] for line in journal.read_text().splitlines())
    assert "a weight of the checkpoint may be damaged" in said and "Traceback" not in said
