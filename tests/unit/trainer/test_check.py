"""``train --check`` finds what can be known without torch: data, folders, and an earlier training in the way."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from collavo.checkpoint.finetuned_checkpoint import TrainingState, write_state
from configs.load import REPOSITORY
from pipeline.commands.cli import main
from tests.tiny_training import settings
from trainer.cli import COMMANDS
from trainer.config import read_training


def check(capsys: pytest.CaptureFixture[str], *words: str, file: str = "collavo_tiny_train") -> tuple[int, str]:
    arguments = [
        "train",
        "--check",
        "--conf_files",
        str(REPOSITORY / "configs" / f"{file}.yaml"),
        "--overrides",
        *words,
    ]
    return main(arguments, COMMANDS), capsys.readouterr().err


def test_a_training_that_can_start_passes(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("cpt", "cit", "segmenter"):
        start = () if stage != "segmenter" else ("RESUME_FROM", "")
        assert check(capsys, *settings(tiny, tmp_path / "out", "TRAIN.STAGE", stage, *start)) == (0, "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["DATA.PANOPTIC.ANNOTATIONS", "no.json"], [r"DATA\.PANOPTIC\.ANNOTATIONS: not found; looked for"]),
        (["DATA.PANOPTIC.MAPS", ""], [r"DATA\.PANOPTIC\.MAPS: is empty, and TRAIN\.STAGE cpt learns from it"]),
        (
            ["DATA.PANOPTIC.MAPS", "a", "DATA.PANOPTIC.IMAGES", "/b"],
            [r"PANOPTIC\.MAPS: ", r"PANOPTIC\.IMAGES: /b is not there"],
        ),
        (["TRAIN.STAGE", "cit", "DATA.CONVERSATIONS", "[]"], [r"DATA\.CONVERSATIONS: is empty"]),
        (["TRAIN.STAGE", "cit", "DATA.CONVERSATIONS", "[{FILE: a.json}]"], [r"entry 1, FILE: not found"]),
        (
            ["TRAIN.EVAL_EVERY", "5", "DATASETS.TEST", "mme", "MME.TEST.PROMPT", "{q}"],
            [r"MME\.TEST\.PROMPT: names \{q\}"],
        ),
        (["TRAIN.EVAL_EVERY", "5", "DATASETS.TEST", "nope"], ["there is no 'nope'"]),
        (["TRAIN.LR_END", "1"], [r"TRAIN\.LR_END 1 is above TRAIN\.LR"]),
        (["SAVE_DIR", "/dev/null/x"], ["SAVE_DIR: /dev/null is no folder"]),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    words: list[str],
    messages: list[str],
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = check(capsys, *settings(tiny, tmp_path / "out", *words))
    assert code == 2
    for message in messages:
        assert re.search(message, said), said


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user may write anywhere")
def test_a_folder_that_cannot_be_written_to(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    code, said = check(capsys, *settings(tiny, tmp_path / "out" / "deeper"))
    assert (code, f"SAVE_DIR: {tmp_path} cannot be written to" in said) == (2, True)


def left(tiny: Path, save: Path, kept: dict[str, Any], stage: str = "cpt") -> None:
    folder = save / "checkpoints" / "step-00000005"
    folder.mkdir(parents=True)
    if stage == "segmenter":
        (folder / "training.json").write_text(json.dumps({"step": 5, "settings": kept}))
        return
    started = str(tiny / "checkpoint")
    state = TrainingState(
        step=5, started_from=started, stage=stage, adapters=(), rank=4, alpha=4, crayon="both", settings=kept
    )
    write_state(folder, state)


def test_an_earlier_training_is_gone_on_with_or_left_alone(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = settings(tiny, tmp_path)
    config, _ = read_training([REPOSITORY / "configs" / "collavo_tiny_train.yaml"], words)
    left(tiny, tmp_path, {"TRAIN.LR": config.TRAIN.LR, "TRAIN.SEED": 0, "DATA.KINDS": [], "data": "unknown yet"})
    code, said = check(capsys, *words)
    assert (code, "holds checkpoints of an earlier training (step-00000005): RESUME True" in said) == (2, True)
    assert check(capsys, *words, "RESUME", "True") == (0, "")
    code, said = check(capsys, *words, "RESUME", "True", "TRAIN.SEED", "3", "DATA.KINDS", "[names]", "TRAIN.KEEP", "7")
    assert code == 2
    assert "TRAIN.SEED: 0 -> 3" in said
    assert "DATA.KINDS: [] -> ['names']" in said
    assert "KEEP" not in said


def test_so_it_is_for_the_segmenter(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = settings(tiny, tmp_path, "TRAIN.STAGE", "segmenter", "RESUME_FROM", "", "RESUME", "True")
    left(tiny, tmp_path, {"XDECODER.POINTS": 12544, "TRAIN.CLIP": 1.0}, "segmenter")
    assert check(capsys, *words) == (0, "")
    code, said = check(capsys, *words, "XDECODER.POINTS", "99")
    assert (code, "XDECODER.POINTS: 12544 -> 99" in said) == (2, True)
    (tmp_path / "checkpoints" / "step-00000005" / "training.json").write_text("[" * 5000)
    code, said = check(capsys, *words)
    assert (code, "not what stage segmenter left" in said) == (2, True)


def test_the_commands_at_the_head_of_the_tiny_training_make_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from assets.tiny import random_checkpoint as tiny_checkpoint
    from assets.tiny.world import __main__ as tiny_world

    file = REPOSITORY / "configs" / "collavo_tiny_train.yaml"
    commands = re.findall(r"^#   (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in commands:
        words = command.split()
        if words[:2] == ["python", "-m"]:
            module = {"assets.tiny.world": tiny_world, "assets.tiny.random_checkpoint": tiny_checkpoint}[words[2]]
            few = ["3" if before == "--scenes" else word for before, word in zip(words[2:], words[3:], strict=False)]
            monkeypatch.setattr("sys.argv", [words[2], *few])
            assert module.main() == 0
        else:
            assert words[:2] == ["bash", "run"]
            assert main([*words[2:], "--check"], COMMANDS) == 0, capsys.readouterr().err
        ran.append(words[0])
    assert ran == ["python", "python", "bash"]
