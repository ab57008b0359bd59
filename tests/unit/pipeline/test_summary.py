"""The table over several benchmarks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.declaration import Expected
from datasets.types import DataError
from pipeline.run import run_plan
from pipeline.summary import columns_of, plain
from pipeline.task import Task
from tests.robustness.toy import DECLARATION, ToyEngine, ToyPipeline, ToySource, make_data, make_plan

MME = {
    "title": "MME",
    "dataset": "mme",
    "expected": [
        {"title": "MME-P", "published": 1689.7, "got": 1690.0, "difference": 0.3},
        {"title": "MME-C", "published": 525.0, "got": None, "difference": None},
    ],
    "metrics": [],
    "judged": {"decided_by": ""},
}


def result(name: str, value: float | None, decided_by: str = "") -> dict[str, Any]:
    metric = {"name": "accuracy", "value": value, "kind": "rate", "num": 4, "group": "", "stderr": None}
    return {"title": name, "expected": [], "metrics": [metric], "judged": {"decided_by": decided_by}}


def test_columns_hold_published_and_own_figures() -> None:
    judged = result("MM-Vet", None, "no judge, and nothing decides without one: not scored")
    columns = [c.cells for r in (MME, result("AI2D", 0.5), judged, result("X", None)) for c in columns_of(r)]
    assert columns == [
        ("MME-P", "1689.7", "1690.0", "+0.3"),
        ("MME-C", "525.0", "undefined", ""),
        ("AI2D", "", "50.0", ""),
        ("MM-Vet", "", "no judge", ""),
        ("X", "", "undefined", ""),
    ]


def test_wide_tables_go_on_below() -> None:
    columns = [column for number in range(30) for column in columns_of(result(f"B{number}", 0.25))]
    shown = plain(columns)
    assert max(map(len, shown.splitlines())) <= 110
    assert shown.count("CoLLaVO-7B, published") == 3
    assert [word for word in shown.split() if word.startswith("B")] == [f"B{number}" for number in range(30)]


class Absent(ToyPipeline):
    """A benchmark whose files are missing."""

    def load(self, roots: Any) -> Any:
        raise DataError("no such file")


def plan(data: Path, save: Path, **last: Any) -> Any:
    """Two benchmarks that run and one whose files are missing."""
    expected = Expected(metric="even", value=50.0, tolerance=1.0, source="nowhere", title="Toy-1")
    declared = [replace(DECLARATION, dataset=f"toy{n}", title=f"Toy {n}") for n in range(3)]
    pipelines = [ToyPipeline(replace(declared[0], expected=(expected,))), Absent(declared[1]), ToyPipeline(declared[2])]
    tasks = [Task(pipeline=p, batch_size_total=4, folder=save / p.declaration.dataset, **last) for p in pipelines]
    return replace(make_plan(data, save), tasks=tasks)


def test_several_benchmarks_end_in_a_table(tmp_path: Path, capsys: Any) -> None:
    make_data(tmp_path / "data")
    source = ToySource(ToyEngine())
    assert run_plan(plan(tmp_path / "data", tmp_path / "run", optional=True), lambda _: source) == 0
    ours = 100 * json.loads((tmp_path / "run" / "toy0" / "results.json").read_text())["scores"]["all"]["even"]
    table = (tmp_path / "run" / "summary.csv").read_text().splitlines()
    assert table == [
        ",Toy-1,Toy 2",
        '"CoLLaVO-7B, published",50.0,',
        f"this run,{ours:.1f},{ours:.1f}",
        f"difference,{ours - 50:+.1f},",
    ]
    shown = capsys.readouterr()
    assert "left out, for reasons said above: toy1" in shown.out
    assert "toy1 is left out: no such file" in shown.err


def test_a_benchmark_that_is_named_must_be_there_before_anything_is_asked(tmp_path: Path, capsys: Any) -> None:
    make_data(tmp_path / "data")
    source = ToySource(ToyEngine())
    assert run_plan(plan(tmp_path / "data", tmp_path / "run"), lambda _: source) == 1
    assert source.loads == 0
    assert "no such file" in capsys.readouterr().err
