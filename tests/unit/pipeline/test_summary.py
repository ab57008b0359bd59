"""The table over several benchmarks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.declaration import Expected
from datasets.types import DataError
from pipeline.results.summary import columns_of, markdown, plain
from pipeline.run.loading import Task
from pipeline.run.plan import run_plan
from tests.robustness.toy import DECLARATION, ToyEngine, ToyPipeline, ToySource, make_data, make_plan

MME: dict[str, Any] = {
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
        ("MME-P", "1689.7", "1690.0", "+0.3", "", ""),
        ("MME-C", "525.0", "undefined", "", "", ""),
        ("AI2D", "", "50.0", "", "", ""),
        ("MM-Vet", "", "no judge", "", "", ""),
        ("X", "", "undefined", "", "", ""),
    ]


def test_wide_tables_go_on_below() -> None:
    columns = [column for number in range(30) for column in columns_of(result(f"B{number}", 0.25))]
    shown = plain([replace(columns[0], published="30.0"), *columns[1:]])
    assert max(map(len, shown.splitlines())) <= 110
    assert shown.count("CoLLaVO-7B, published") == 3
    assert [word for word in shown.split() if word.startswith("B")] == [f"B{number}" for number in range(30)]


FORCED = {"forced": ["CRAYON.MAP_SCALE 7 instead of 14"]}
PART = {"part": {"records": 100, "of": 2374, "seed": 0}}


def test_another_model_has_no_published_figures_beside_it() -> None:
    columns = list(columns_of({**MME, "another_model": "another model"}))
    shown = plain(columns)
    assert "published" not in shown and "1689.7" not in shown and "1690.0" in shown


def test_a_part_and_what_was_never_taught_are_said_where_figures_stand() -> None:
    rows = [{**row, "difference": None} for row in MME["expected"]]
    results = [
        {**MME, "expected": rows, **PART, "limit": 100, **COUNTED},
        {**result("AI2D", 0.5), "dataset": "ai2d", "untaught": True, "another_model": "", **FORCED, **COUNTED},
    ]
    columns = [column for one in results for column in columns_of(one)]
    shown, page = plain(columns), markdown(columns, results, {}, {"pope_test": "no answers"})
    for text in (shown, page):
        assert text.count("100 of 2374") >= 2 and "difference" not in text
        assert "among its lessons" in text and "1689.7" in text
    assert "a random 100 of 2374 records (EVAL.LIMIT)" in page
    assert page.replace("\\", "").count("MAP_SCALE 7 instead of 14 (CRAYON.FORCE)") == 1
    assert "not among the model's lessons" in page and "`pope_test` failed: no answers" in page


COUNTS = dict.fromkeys(("unscored", "withheld", "errors", "bad_records"), 0)
COUNTED = {"counts": {"answered": 4, "records": 4, **COUNTS}, "asked": {"rules": "official"}}


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


@pytest.mark.parametrize(("limit", "another_model"), [(9, ""), (None, "another model")])
def test_what_is_not_the_published_model_on_the_whole_benchmark_has_no_difference(
    tmp_path: Path, limit: int | None, another_model: str
) -> None:
    make_data(tmp_path / "data")
    planned = plan(tmp_path / "data", tmp_path / "run", optional=True)
    config = replace(planned.config, EVAL=replace(planned.config.EVAL, LIMIT=limit))
    planned = replace(planned, config=config, another_model=another_model)
    assert run_plan(planned, lambda _: ToySource(ToyEngine())) == 0
    (row,) = json.loads((tmp_path / "run" / "toy0" / "results.json").read_text())["expected"]
    assert row["got"] is not None and row["difference"] is None and row["within"] is None
    for file in ("summary.csv", "summary.md", "toy0/results.md"):
        text = (tmp_path / "run" / file).read_text()
        assert ("9 of 60" in text) == (limit is not None)
        assert "difference," not in text and "+" not in text
    page = (tmp_path / "run" / "summary.md").read_text()
    assert ("not compared with published figures: another model" in page) == bool(another_model)


def test_a_benchmark_that_fails_does_not_keep_others_from_running(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collavo.errors import NonFiniteError

    make_data(tmp_path / "data")
    answer = ToyEngine.answer

    def failing(self: Any, queries: Any, generation: Any) -> list[Any]:
        if self.calls < 15:  # the first benchmark's batches
            self.calls += 1
            raise NonFiniteError("not finite", [None] * len(queries))
        return answer(self, queries, generation)

    monkeypatch.setattr(ToyEngine, "answer", failing)
    monkeypatch.setattr(ToyEngine, "calls", 0, raising=False)
    planned = plan(tmp_path / "data", tmp_path / "run", optional=True)
    questions = len({tuple(json.loads(line).values())[1:] for line in (tmp_path / "data" / "toy.jsonl").open()})
    monkeypatch.setattr(ToyEngine, "calls", 15 - -(-questions // 4), raising=False)
    assert run_plan(planned, lambda _: ToySource(ToyEngine())) == 1
    assert "error: toy0: none of its" in capsys.readouterr().err
    assert "`toy0` failed: toy0: none of its" in (tmp_path / "run" / "summary.md").read_text()
    assert (tmp_path / "run" / "summary.csv").read_text().startswith(",Toy 2\n")


def test_a_benchmark_that_is_named_must_be_there_before_anything_is_asked(tmp_path: Path, capsys: Any) -> None:
    make_data(tmp_path / "data")
    source = ToySource(ToyEngine())
    assert run_plan(plan(tmp_path / "data", tmp_path / "run"), lambda _: source) == 1
    assert source.loads == 0
    assert "no such file" in capsys.readouterr().err
