"""``show PREDICTIONS``: records of a finished run, without a model and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from assets.tiny.world import write_world
from pipeline.commands.cli import main
from pipeline.results.browse.prediction import Prediction, PredictionFilter, as_line
from pipeline.runtime.files import json_line
from tests.e2e.test_entry import entry


def predictions(num: int) -> list[Prediction]:
    verdicts = ("right", "wrong", "unreadable", "error")
    return [Prediction(id=str(n), text="x", question=f"q{n}", verdict=verdicts[n % 4], target="t") for n in range(num)]


def chosen(of: int, **wanted: Any) -> list[str]:
    return [one.id for one in PredictionFilter(**wanted).choose(predictions(of))]


def test_records_are_chosen_by_fault_id_and_number() -> None:
    assert chosen(8, num=2) == ["0", "4"]
    assert chosen(8, num=99, wrong=True) == ["1", "2", "3", "5", "6", "7"]
    assert chosen(8, ids=("5", "2", "5"), num=1) == ["5", "2"]
    assert chosen(8, ids=("4", "5"), wrong=True) == ["5"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of POPE with two wrong replies."""
    write_world(tmp_path / "data", seed=1, scenes=2, size=56)
    folder = tmp_path / "run" / "pope_test"
    folder.mkdir(parents=True)
    config = f"DATASETS: {{TEST: pope_test, ROOT: {tmp_path / 'data'}}}\n"
    (folder / "config.yaml").write_text(config)
    from pipeline.benchmarks import select_pipeline
    from pipeline.catalog import load_catalog

    records, _ = select_pipeline("", load_catalog().benchmarks["pope_test"]).load([tmp_path / "data"])
    rows = [
        Prediction(
            id=record.id, text="\x1b[2Jno", question="Is it?", target="yes", verdict="wrong" if n in (1, 3) else "right"
        )
        for n, record in enumerate(records)
    ]
    (folder / "predictions.jsonl").write_bytes(b"".join(json_line(as_line(row)) for row in rows))
    return folder


@pytest.mark.slow
def test_wrong_replies_are_shown_with_their_images(run: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = entry("show", run / "predictions.jsonl", "--wrong", "--out", sheet)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": wrong\n") == 2 and "\\x1b[2Jno" in done.stdout and "\x1b" not in done.stdout
    with Image.open(sheet) as opened:
        assert len(opened.convert("RGB").crop((16, 16, 240, 240)).getcolors(100_000) or ()) > 2, "an image is on it"


def test_without_the_dataset_the_words_are_shown(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").rename(tmp_path / "away")
    assert main(["show", str(run), "--num", "1", "--out", str(tmp_path / "sheet.png")]) == 0
    shown = capsys.readouterr()
    assert "Is it?" in shown.out and "images are not shown" in shown.err
    moved = ["--overrides", "DATASETS.ROOT", str(tmp_path / "away")]
    assert main(["show", str(run), "--num", "1", "--out", str(tmp_path / "sheet.png"), *moved]) == 0
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--id", "nope"], "there is no record nope"),
        (["--num", "0"], "--num must be at least 1"),
        (["--out", "sheet.xyz"], "--out: "),
    ],
)
def test_mistakes_are_named(run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_choice_needs_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--wrong"]) == 2
    assert "--wrong needs the predictions of a run" in capsys.readouterr().err
