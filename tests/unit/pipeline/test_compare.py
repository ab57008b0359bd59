"""Runs compared record by record, in the paper's table, and as figures."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from datasets.evaluation.statistics import rates
from pipeline.commands.cli import main
from pipeline.commands.registry import COMMANDS
from pipeline.results.browse import figures
from pipeline.results.browse.comparison import compare_runs, mcnemar
from pipeline.results.browse.paper_table import PaperTable, latex_text, paper_table
from pipeline.results.browse.prediction import Prediction, as_line
from pipeline.results.browse.runs import BenchmarkRun
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import json_line


def predictions(scores: Sequence[float | None], images: int = 5, text: str = "a") -> list[Prediction]:
    return [
        Prediction(
            id=f"r{n}",
            image=f"{n % images}.jpg",
            text=f"{text}{score}",
            score=score,
            target="x",
            verdict="right",
            group=f"g{n % 2}",
        )
        for n, score in enumerate(scores)
    ]


@given(one=st.integers(0, 60), other=st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)


def test_mcnemar_of_many_records() -> None:
    assert mcnemar(4400, 4600) == pytest.approx(binomtest(4400, 9000).pvalue)


def test_a_run_against_itself_does_not_differ() -> None:
    rows = predictions([1.0, 0.0, 0.5, None])
    found = compare_runs(rows, rows)
    assert (found.overall.value, found.overall.num, found.undecided) == (0.0, 3, 1)
    assert found.changes == [] and found.overall.p_value is None, "half a credit is no yes or no"


def test_the_difference_is_paired_and_clustered_by_image() -> None:
    draw = random.Random(3)
    before = [float(draw.random() < 0.5) for _ in range(200)]
    after = [1.0 if draw.random() < 0.2 else value for value in before]
    first, second = predictions(before, 20), predictions(after, 20, "b")
    found = compare_runs(first, list(reversed(second))).overall
    gaps = [b - a for a, b in zip(before, after, strict=True)]
    expected = rates.mean("d", gaps, clusters=[n % 20 for n in range(200)], signed=True)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.second_better == sum(gap > 0 for gap in gaps) and found.first_better == 0
    assert found.p_value == pytest.approx(binomtest(found.second_better, found.second_better).pvalue)
    groups = compare_runs(first, second).groups
    assert [(group.group, group.num) for group in groups] == [("g0", 100), ("g1", 100)]
    assert sum(group.value or 0 for group in groups) / 2 == pytest.approx(found.value)


def test_what_changed_is_listed_with_ids() -> None:
    first = predictions([1.0, 0.0, 1.0, 0.0, None])
    second = [
        first[0],
        replace(first[1], score=1.0, text="new"),
        replace(first[2], score=0.0, text="new"),
        replace(first[3], text="new"),
        replace(first[4], score=1.0),
        replace(first[0], id="other"),
    ]
    found = compare_runs(first, second)
    assert [(c.id, c.change) for c in found.changes] == [
        ("r1", "better"),
        ("r2", "worse"),
        ("r3", "reply"),
        ("r4", "reply"),
    ]
    assert (found.only_first, found.only_second, found.undecided) == ([], ["other"], 1)


def results(title: str, metrics: list[dict[str, Any]], expected: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    counts = {name: 0 for name in ("unscored", "withheld", "errors", "bad_records")}
    return {
        "title": title,
        "dataset": title.lower(),
        "metrics": metrics,
        "expected": expected or [],
        "judged": {"decided_by": ""},
        "counts": {"records": 1, "answered": 1, **counts},
        "asked": {"rules": "official"},
    }


def metric(name: str, value: float | None, group: str = "", kind: str = "rate") -> dict[str, Any]:
    return {"name": name, "group": group, "value": value, "num": 10, "low": None, "high": None, "kind": kind}


def published(title: str, value: float, got: float) -> dict[str, Any]:
    return {"metric": "x", "title": title, "published": value, "got": got, "difference": got - value, "source": ""}


def run(name: str, title: str, *args: Any) -> BenchmarkRun:
    return BenchmarkRun(
        folder=Path(name), dataset=title.lower(), name=name, predictions=[], results=results(title, *args)
    )


def two_models() -> list[BenchmarkRun]:
    pope = [metric(m, 0.5 + 0.1 * i, each) for each in figures.LISTS for i, m in enumerate(figures.METRICS)]
    return [
        run("a_1", "POPE", [*pope, metric("accuracy", 0.8, "mean")], [published("", 87.2, 80.0)]),
        run("a_1", "MME", [metric("score", 1500.0, "perception", "score")], [published("MME-P", 1689.7, 1500.0)]),
        run("a_1", "SEED-IMG", [metric("accuracy", 0.66)]),
        run("b & <c>", "POPE", [*pope, metric("accuracy", 0.9, "mean")], [published("", 87.2, 90.0)]),
        run("b & <c>", "SEED-IMG", [metric("accuracy", 0.61)]),
        run("b & <c>", "=cmd()", [metric("accuracy", 0.5)]),
    ]


def test_the_table_has_the_papers_columns() -> None:
    table = paper_table(two_models(), published=True)
    assert list(table.lines()) == [
        ("model", "POPE", "MME-P", "SEED-IMG", "=cmd()"),
        ("a_1", "80.0", "1500.0", "66.0", ""),
        ("b & <c>", "90.0", "", "61.0", "50.0"),
        ("CoLLaVO-7B, published", "87.2", "1689.7", "", ""),
    ]
    assert list(csv.reader(table.csv().splitlines()))[0][-1] == "'=cmd()"
    assert table.latex().splitlines() == [
        r"\begin{tabular}{lcccc}",
        r"\toprule",
        r" & POPE & MME-P & SEED-IMG & =cmd() \\",
        r"\midrule",
        r"a\_1 & 80.0 & 1500.0 & \textbf{66.0} &  \\",
        r"b \& <c> & \textbf{90.0} &  & 61.0 & 50.0 \\",
        r"CoLLaVO-7B, published & 87.2 & \textbf{1689.7} &  &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert "b & &lt;c&gt;" in table.markdown()


def test_the_published_figures_of_a_runs_model_stand_next_to_it_with_their_source() -> None:
    """LLaVA-1.5's rows, by its authors' model zoo; what none of the runs asked has no place."""

    def of(profile: str) -> list[BenchmarkRun]:
        model = {"kind": "hf", "name": "x", "profile": profile}
        named = zip(two_models(), ("pope", "mme"), strict=False)
        return [replace(one, results={**one.results, "benchmark": name, "model": model}) for one, name in named]

    pope, mme = of("llava-1.5")
    table = paper_table([pope, mme], published=True)
    assert list(table.lines())[2:] == [
        ("CoLLaVO-7B, published", "87.2", "1689.7"),
        ("LLaVA-1.5 7B, published", "", "1510.7"),  # POPE's mean F1 is another figure than the mean accuracy
        ("LLaVA-1.5 13B, published", "", "1531.3"),
    ]
    assert table.sources["LLaVA-1.5 7B, published"] == "haotian-liu/LLaVA, docs/MODEL_ZOO.md"
    assert "LLaVA-1.5 7B, published: haotian-liu/LLaVA" in table.markdown()
    assert len(paper_table([pope, mme]).rows) == 1
    assert list(paper_table(of("somebody's own"), published=True).rows) == ["a_1", "CoLLaVO-7B, published"]


@given(text=st.text(max_size=20))
def test_no_text_is_markup_to_latex(text: str) -> None:
    shown = latex_text(text)
    for sign in "&%$#_{}":
        assert shown.replace(f"\\{sign}", "").replace("{}", "").count(sign) == 0


@pytest.mark.slow
def test_figures_are_drawn_from_what_the_runs_have(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an optional extra (bash install --extras figures)")
    runs = two_models()
    files, missing = figures.draw_figures(paper_table(runs), runs, {"a_1": 7.0}, tmp_path)
    names = {f"{name}.{kind}" for name in ("radar", "seed_parameters", "pope") for kind in ("svg", "png")}
    assert {file.name for file in files} == names and missing == []
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in names if name.endswith("png"))
    assert b"mathdefault" not in (tmp_path / "seed_parameters.svg").read_bytes(), "sizes are plain numbers"
    again, _ = figures.draw_figures(paper_table(runs), runs, {"a_1": 7.0}, tmp_path / "again")
    svg = {file.name: file.read_bytes() for file in again if file.suffix == ".svg"}
    assert all((tmp_path / name).read_bytes() == content for name, content in svg.items())
    files, missing = figures.draw_figures(PaperTable(titles=[], rows={}), [], {}, tmp_path / "none")
    assert files == [] and [reason.split(":")[0] for reason in missing] == ["radar", "seed_parameters", "pope"]


def test_what_figures_show() -> None:
    runs = two_models()
    table = paper_table(runs)
    assert figures.radar_values(table)["a_1"] == {"POPE": 80.0, "MME-P / 20": 75.0, "SEED-IMG": 66.0}
    assert figures.seed_points(table, {"a_1": 7.0, "other": 3.0}) == {"a_1": (7.0, 66.0)}
    assert figures.pope_values(runs)["b & <c>"]["popular", "recall"] == pytest.approx(70.0)


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RunError, match="bash install --extras figures"):
        figures.library()


def folder(place: Path, rows: Sequence[Prediction], accuracy: float) -> Path:
    (place / "zoo").mkdir(parents=True)
    (place / "zoo" / "predictions.jsonl").write_bytes(b"".join(json_line(as_line(row)) for row in rows))
    (place / "zoo" / "results.json").write_text(json.dumps(results("Zoo", [metric("accuracy", accuracy)])))
    return place


def compared(*words: object) -> int:
    return main(["compare", *map(str, words)], COMMANDS)


def test_the_command_writes_tables_and_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = folder(tmp_path / "one", predictions([1.0, 0.0, 0.0, 0.0]), 0.25)
    two = folder(tmp_path / "two", predictions([0.0, 1.0, 1.0, 1.0]), 0.75)
    assert compared(one, two, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "two against one: worse on 1: r0" in shown and "better on 3: r1, r2, r3" in shown and "+50.00" in shown
    changes = [json.loads(line) for line in (tmp_path / "out" / "changes.jsonl").read_text().splitlines()]
    assert [(row["dataset"], row["id"], row["change"]) for row in changes] == [
        *(("zoo", "r0", "worse"), *(("zoo", f"r{n}", "better") for n in (1, 2, 3)))
    ]
    table = list(csv.reader((tmp_path / "out" / "summary.csv").open()))
    assert table == [["model", "Zoo"], ["one", "25.0"], ["two", "75.0"]]
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert [(row["group"], row["records"], row["difference"]) for row in rows] == [
        ("all", "4", "+50.00"),
        ("g0", "2", "+0.00"),
        ("g1", "2", "+100.00"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "two", "--names", "x"], "--names needs 2 different names"),
        (["one", "two", "--parameters", "7"], "--parameters gives 1 numbers, for 2 runs"),
        (["one", "other"], "the runs have no benchmark in common: zoo; aquarium"),
        (["one", "nowhere"], "nowhere: no such file"),
        (["one", "broken"], "not the results of a run"),
    ],
)
def test_mistakes_are_named(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "other", "broken"):
        folder(tmp_path / name, predictions([1.0]), 1.0)
    (tmp_path / "other" / "zoo").rename(tmp_path / "other" / "aquarium")
    content = json.loads((tmp_path / "other" / "aquarium" / "results.json").read_text())
    (tmp_path / "other" / "aquarium" / "results.json").write_text(json.dumps({**content, "dataset": "aquarium"}))
    (tmp_path / "broken" / "zoo" / "results.json").write_text("[]")
    assert compared(*words) == 2
    assert message in capsys.readouterr().err
