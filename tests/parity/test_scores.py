"""Every recorded figure of the official scorers is ours too; and the command notices when one is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import fixture_dir, fixtures_root
from tests.parity import scores
from tests.parity.scores import BENCHMARKS, compare, find_cases

LEFT = {"exact_equality_all_rows", "lmms_eval", "metrics_over_file_rows"}
"""Recorded next to the official figures: other tools' rules, some drawn at random, that we do not have."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_figures_equal_the_official_scorers(name: str) -> None:
    fixture_dir(f"benchmarks/{name}")
    found = [case for case in find_cases(fixtures_root() / "benchmarks") if case.top.name == name]
    assert found
    for case in found:
        rows = compare(case)
        assert [row for row in rows if not row.ok] == [], case.name
        assert len(rows) >= 5
        assert set(case.left()) <= LEFT, case.name


PLACES: dict[str, tuple[str | int, ...]] = {
    "ai2d": ("metrics", "accuracy"),
    "gqa_testdev_balanced": ("metrics", "accuracyPerSteps", "1", 1),
    "hallusionbench": ("metrics", "VS", "qAcc"),
    "mathvista_testmini": ("metrics", "grade", "college", "accuracy"),
    "mm-vet": ("metrics", "rounded_1", "capability", "ocr"),
    "mmbench": ("circular", "metrics", "Overall"),
    "mmbench_cn": ("vanilla_all_rows", "metrics", "LR"),
    "mme": ("metrics", "tasks", "count", "acc"),
    "pope": ("metrics", "random", "f1"),
    "qbench_dev": ("metrics", "by_type", "1", "accuracy"),
    "scienceqa_test": ("metrics", "img_correct"),
    "seed": ("metrics", "image", "correct"),
    "textvqa_val": ("metrics", "accuracy"),
}
"""One figure of each benchmark, to be falsified."""


@pytest.mark.parametrize("name", PLACES)
def test_a_false_figure_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = fixture_dir(f"benchmarks/{name}")
    folder = tmp_path / name
    shutil.copytree(source, folder, ignore=lambda place, names: [n for n in names if n.startswith("published_")])
    expected = json.loads((folder / "expected.json").read_text())
    *path, last = PLACES[name]
    place: Any = expected
    for key in path:
        place = place[key]
    place[last] += 1e-6 if isinstance(place[last], float) else 1
    (folder / "expected.json").write_text(json.dumps(expected))
    monkeypatch.setattr("sys.argv", ["scores", str(tmp_path)])
    assert scores.main() == 1
    marked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ! ")]
    assert marked


def test_folders_without_cases_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vqav9").mkdir()
    monkeypatch.setattr("sys.argv", ["scores", str(tmp_path)])
    assert scores.main() == 2
    shown = capsys.readouterr()
    assert "vqav9: not a benchmark that is compared here" in shown.out
    assert "holds no case" in shown.err
    monkeypatch.setattr("sys.argv", ["scores", str(tmp_path / "nowhere")])
    assert scores.main() == 2
