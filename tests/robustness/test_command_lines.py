"""No command line and no configuration file ends in a traceback: an exit code, and a line that says what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import pipeline.commands.cli
from assets.tiny.random_checkpoint import make_tiny
from assets.tiny.world import write_world
from configs.load import REPOSITORY
from pipeline.commands.cli import main
from tests.command_lines import ZOO, Mistakes
from tests.limits import QUICK
from trainer.cli import COMMANDS

LINES = 90 if QUICK else 900


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    write_world(folder / "data", seed=3, scenes=2, size=28)
    make_tiny(folder / "checkpoint", seed=0)
    return folder


def lines(world: Path) -> list[list[str]]:
    """Command lines without a mistake; none of them loads a model."""
    pope = ["DATASETS.TEST", "pope_test", "PIPELINE", "POPEPipeline", "POPE.TEST.BATCH_SIZE_TOTAL", "6"]
    place = ["DATASETS.ROOT", str(world / "data"), "RESUME_FROM", str(world / "checkpoint"), "SAVE_DIR", "out"]
    place += ["SEGMENTER.NAME", "none"]  # the default one is fetched where it is not there
    tiny = ["--conf_files", "configs/collavo_tiny_train.yaml"]
    return [
        [
            "eval",
            "--check",
            "--conf_files",
            "configs/collavo_step2.yaml",
            "--overrides",
            "WANDB",
            "False",
            *pope,
            *place,
        ],
        ["eval", "--check", "--conf_files", "configs/collavo_eval.yaml", "configs/vl_test.yaml"]
        + ["--overrides", *place, "MODEL.NAME", "collavo"],
        ["eval", "--print-config", "--overrides", *pope],
        ["train", "--check", *tiny, "--overrides", *place, "TRAIN.STEPS", "3", "DATA.CONVERSATIONS", "[]"],
        [
            "train",
            "--print-config",
            "--conf_files",
            "configs/segmenter_xdecoder_tiny.yaml",
            "--overrides",
            "TRAIN.LR",
            "1e-3",
        ],
        [
            "eval",
            "--check",
            "--conf_files",
            "zoo.yaml",
            "--overrides",
            "DATASETS.TEST",
            "zoo",
            *place[2:],
            "DATASETS.ROOT",
            ".",
        ],
        ["validate", "zoo", "--conf_files", "zoo.yaml", "--overrides", "DATASETS.ROOT", "."],
        ["show", "--num", "2", "--out", "sheet.png", "--overrides", *pope, *place],
        ["segment", "image.png", "--out", "maps", "--overrides", "SEGMENTER.NAME", "none"],
        ["validate", "pope_test", "--overrides", *place[:2]],
        ["score", "pope_test", "--predictions", "answers.json", "--out", "scores", "--overrides", *place[:2]],
        ["list"],
        ["describe", "--text-tokens", "5", "--overrides", "TRAIN.STAGE", "cit"],
        ["merge", "nowhere", "--out", "merged"],
    ]


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, what was printed, and a traceback, if there was one."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    code, trace = -1, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words, COMMANDS)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:  # noqa: BLE001 - whatever comes out is what is looked for
            trace = traceback.format_exc()
        err.flush()
        out.flush()
    return code, err.buffer.getvalue().decode(), trace


@pytest.fixture
def stopped(world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in; what begins to evaluate or to train ends at once: only what comes before is tried here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATASET", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, function in (
        ("trainer.run", "train"),
        ("trainer.describe", "show_description"),
        ("pipeline.commands.segment", "segment"),
    ):
        module = ModuleType(name)
        setattr(module, function, lambda *_: 0)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("pipeline.commands.show.show", lambda *_: 0)  # its sheets are drawn of predictions, too
    monkeypatch.setattr(pipeline.commands.cli, "evaluate", lambda *_: 0)
    (tmp_path / "zoo.yaml").write_text(ZOO)
    record = {"nr": 1, "ask": "Is there a cat?", "photo": "image.png", "truth": "yes"}
    (tmp_path / "zoo.jsonl").write_text(json.dumps(record) + "\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "answers.json").write_text('{"random/1": "yes"}')
    return tmp_path


def test_the_lines_have_no_mistake_to_begin_with(world: Path, stopped: Path) -> None:
    for words in lines(world)[:-1]:
        code, said, trace = run(words)
        assert trace == ""
        assert code == 0 or words[0] == "score", said


def test_mistakes_end_in_an_exit_code_and_a_line(world: Path, stopped: Path) -> None:
    mistakes = Mistakes(11, stopped, REPOSITORY)
    good = lines(world)
    failed = []
    for number in range(LINES):
        words = mistakes.line(good[number % len(good)])
        code, said, trace = run(words)
        explained = code != 2 or "error: " in said or not any(not w.startswith("-") for w in words)
        if trace or code not in (0, 1, 2) or not explained or any(len(line) > 6000 for line in said.split("\n")):
            failed.append(f"{[w[:80] for w in words]}: {code} {said[:300]} {trace[-1500:]}")
    assert not failed, f"{len(failed)} of {LINES}:\n" + "\n\n".join(failed[:8])
