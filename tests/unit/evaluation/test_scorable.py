"""Every declared benchmark's own targets get the most that its rule gives, and what cannot be scored is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from assets.tiny.world import write_world
from datasets.declaration import Benchmark
from datasets.evaluation import benchmark_scorer
from datasets.evaluation.base import JudgedScorer, Scorer
from datasets.evaluation.exact_match import ExactMatchScorer
from datasets.evaluation.judges.base import Request
from datasets.evaluation.registry import SCORERS
from datasets.evaluation.scorable import UnscorableError, check_scoring, prepare_records, try_records
from datasets.types import Metric, Record, Score, Scored
from pipeline.base import BenchmarkPipeline
from pipeline.catalog import load_catalog
from pipeline.declaration_file import parse_declaration
from pipeline.run.identity import digest
from tests.fixtures import fixture_dir
from tests.reading import load_records

CATALOG = load_catalog().benchmarks
RULES = [
    (name, released)
    for name, b in CATALOG.items()
    for released in (False, True)
    if not released or b.as_released() != b
]
GOLDEN: dict[str, Mapping[str, Any]] = {
    **dict.fromkeys(
        ("ai2d", "gqa_testdev_balanced", "hallusionbench", "mathvista_testmini", "mm-vet", "mmbench", "mmbench_cn"),
        {"root": "."},
    ),
    **dict.fromkeys(("qbench_dev", "scienceqa_test", "seed", "textvqa_val"), {"root": "."}),
    "mme": {"root": "annotations"},
    "pope_test": {"folders": ["annotations"]},
}
FOLDERS = {"pope_test": "pope"}
EMPTY = {"pope_test", "class2binary", "hallusionbench", "mathvista_testmini", "textvqa_val", "qbench_dev"}
"""Benchmarks whose rules find an answer in some empty replies: yes, not to know, the nearest or last option."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, seed=0, scenes=4, size=112)
    return folder


def check(benchmark: Benchmark, root: Path) -> None:
    pipeline = BenchmarkPipeline(benchmark)
    raw, broken = load_records(benchmark, [root])
    records, bad = pipeline.load([root])
    assert (broken, bad, digest(raw)) == ([], [], digest(records))  # official targets are in their scorer's form
    found = check_scoring(pipeline, records)
    assert found.bad == {}
    assert found.scored == sum(record.target is not None for record in records) > 0
    assert found.own == pytest.approx(1.0)
    assert found.empty == 0.0 or benchmark.dataset in EMPTY
    assert found.sentence.startswith(f"scored {found.scored:,} records with their own targets")


@pytest.mark.parametrize(("name", "released"), RULES)
def test_own_targets_of_every_mini_version(name: str, released: bool, world: Path) -> None:
    check(CATALOG[name].as_released() if released else CATALOG[name], world)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "released"), [(name, released) for name, released in RULES if name in GOLDEN])
def test_own_targets_of_the_golden_records(name: str, released: bool) -> None:
    root = fixture_dir(f"benchmarks/{FOLDERS.get(name, name)}")
    benchmark = CATALOG[name].as_released() if released else CATALOG[name]
    check(replace(benchmark, data={**benchmark.data, **GOLDEN[name]}), root)


def test_every_scorer_says_which_targets_it_understands() -> None:
    for name, scorer in SCORERS.items():
        assert scorer.own_reply is not Scorer.own_reply, name
        assert scorer.prepare is not Scorer.prepare or name == "panoptic_quality"
        assert dataclasses.is_dataclass(scorer) and scorer.__dataclass_params__.frozen, name


def test_declarations_use_every_scorer_but_those_of_sets_without_one() -> None:
    used = {benchmark.scorer for benchmark in CATALOG.values()}
    assert used <= set(SCORERS)
    assert set(SCORERS) - used == {"exact_match"}


def declared(scorer: Any) -> Benchmark:
    return parse_declaration(
        {"name": "mine", "data": {"file": "q.tsv"}, "prompt": "{question}", "scorer": scorer}, "mine.yaml"
    )


def records(*targets: Any, **meta: Any) -> list[Record]:
    return [
        Record(id=str(n), image=None, fields={"question": "?"}, target=target, meta=meta, where=f"q.tsv, line {n + 2}")
        for n, target in enumerate(targets)
    ]


def test_targets_are_normalised_and_one_unscorable_record_is_malformed() -> None:
    good, bad = prepare_records(declared("yes_no"), records("Yes", "TRUE", "perhaps", 0, None))
    assert [(r.id, r.target) for r in good] == [("0", "yes"), ("1", "yes"), ("3", "no"), ("4", None)]
    (only,) = bad
    assert (only.where, only.reason) == ("q.tsv, line 4", "'answer' should be yes or no, got 'perhaps'")
    assert benchmark_scorer(declared("yes_no")).score(good[0], "Yes").value == 1.0


def test_a_benchmark_of_which_nothing_can_be_scored_is_refused() -> None:
    with pytest.raises(UnscorableError, match=r"mine cannot be scored by 'mme': none of its 2 .* line 2: lacks pair"):
        prepare_records(declared("mme"), records("yes", "no"))


def test_rules_that_cannot_give_a_target_its_credit_are_found() -> None:
    rows = records("B", "F", options=dict(zip("ABCDEF", "uvwxyz", strict=True)))
    trials = list(try_records(declared("scienceqa"), prepare_records(declared("scienceqa"), rows)[0], judged=False))
    assert [trial.fault for trial in trials] == ["", "its own answer 'F' gets 0 by the rule, where the most is 1"]


ONE, ZERO = Score(value=1.0, extracted=""), Score(value=0.0, extracted="")
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"score": lambda self, r, t: ONE}, "an empty reply gets as much (1) as its own answer 'a'"),
    ({"score": lambda self, r, t: ZERO}, "its own answer 'a' gets 0 by the rule, where the most is 1"),
    ({"highest": lambda self, r: 0.0, "score": lambda self, r, t: ZERO}, "gets any credit by the rule"),
    ({"score": lambda self, r, t: r.meta["gone"]}, "the scorer 'mine' fails on it: KeyError: 'gone'"),
    ({"own_verdict": lambda self, r, p: "no idea"}, "a judge's reply 'no idea' would not be understood"),
]


class _Mine(JudgedScorer):
    """The text must be the target, or a judge says ``right``."""

    def score(self, record: Record, text: str) -> Score:
        return ONE if text == record.target else ZERO

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        return []

    def requests(self, answers: Iterable[tuple[Record, str]]) -> list[Request]:
        read = {"right": "right"}.get
        return [Request(record=r.id, part="verdict", prompt="", parse=read, reminder="") for r, _ in answers]

    def own_verdict(self, record: Record, part: str) -> str:
        return "right"

    def judged(self, record: Record, text: str, verdicts: Mapping[str, str]) -> Score:
        return ONE if verdicts["verdict"] == "right" else ZERO


@pytest.mark.parametrize(("functions", "fault"), FAULTS)
def test_scorers_at_fault(functions: dict[str, Any], fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "mine", dataclass(frozen=True)(type("Faulty", (_Mine,), functions)))
    benchmark = replace(declared("exact_match"), scorer="mine")
    (trial,) = try_records(benchmark, records("a"), judged="own_verdict" in functions)
    assert fault in trial.fault
    if "own_verdict" in functions:
        monkeypatch.setitem(SCORERS, "mine", dataclass(frozen=True)(_Mine))
        (trial,) = try_records(benchmark, records("a"), judged=True)
        assert (trial.fault, trial.own, dict(trial.verdicts)) == ("", 1.0, {"verdict": "right"})


def test_figures_that_fail_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: BenchmarkPipeline, answers: Any) -> Any:
        raise KeyError("gone")

    monkeypatch.setattr(BenchmarkPipeline, "evaluate", broken)
    with pytest.raises(UnscorableError, match="cannot be scored by 'exact_match': its figures fail: KeyError: 'gone'"):
        check_scoring(BenchmarkPipeline(declared("exact_match")), records("a"))


def test_withheld_targets_are_no_fault() -> None:
    found = check_scoring(BenchmarkPipeline(declared("exact_match")), records(None, None))
    assert (found.scored, found.own, found.bad) == (0, None, {})
    assert found.sentence == "scored nothing: no record has an answer to compare with; replies will be kept"


GROUPS = [(5, ["5"]), ("easy", "easy"), ("['ocr', 'math']", ["ocr", "math"]), (["ocr", 3], ["ocr", "3"]), (None, None)]


@pytest.mark.parametrize(("written", "named"), GROUPS)
def test_groups_are_texts_however_a_table_writes_them(written: Any, named: Any) -> None:
    kind = {"question_type": "free_form", "answer_type": "integer"}
    (row,) = prepare_records(declared("mathvista"), records("3", **kind, grade=written, skills=written))[0]
    assert (row.meta["grade"], row.meta["skills"]) == (named, named)
    (row,) = prepare_records(declared("graded"), records("3", capability=written))[0]
    assert row.meta["capability"] == ([named] if isinstance(named, str) else named)
    for scorer, meta in (("mathvista", {**kind, "grade": written}), ("graded", {"capability": written})):
        pipeline = BenchmarkPipeline(declared(scorer))
        found = check_scoring(pipeline, prepare_records(pipeline.declaration, records("3", **meta))[0])
        assert (found.scored, found.bad) == (1, {})


@pytest.mark.parametrize(("scorer", "name"), [("mathvista", "grade"), ("graded", "capability")])
def test_a_group_without_a_name_spoils_its_record_alone(scorer: str, name: str) -> None:
    kind = {"question_type": "free_form", "answer_type": "integer"}
    rows = [*records("3", **kind, **{name: {"a": 1}}), replace(records("4", **kind)[0], id="fine")]
    good, bad = prepare_records(declared(scorer), rows)
    assert [record.id for record in good] == ["fine"]
    assert [record.reason for record in bad] == [f"'{name}' should be a text or a number, got {{'a': 1}}"]


def test_numbers_of_passes_and_figures_may_have_a_decimal_point_in_text() -> None:
    options = {"A": "u", "B": "v"}
    rows = records("A", "B", question="q", options=options, **{"pass": "0.0"})
    assert [row.meta["pass"] for row in prepare_records(declared("circular"), rows)[0]] == [0, 0]
    place = {"category": "VS", "subcategory": "ocr", "set_id": "1.0", "figure_id": "0.0", "question_id": 2.0}
    (row,) = prepare_records(declared("hallusion"), records("yes", **place, visual_input="2.0"))[0]
    assert [row.meta[name] for name in (*place, "visual_input")] == ["VS", "ocr", "1", "0", "2", "2"]
    said = benchmark_scorer(declared("hallusion")).score(row, "I do not know")
    assert said.value == 1.0  # there is no image to know it from


def test_passes_that_count_from_one_are_refused() -> None:
    rows = records("A", "B", question="q", options={"A": "u", "B": "v"}, **{"pass": 1})
    pipeline = BenchmarkPipeline(declared("circular"))
    with pytest.raises(UnscorableError, match="no record is a first pass: 'pass' counts from 0, and the least is 1"):
        check_scoring(pipeline, prepare_records(pipeline.declaration, rows)[0])


def test_one_record_that_spoils_the_figures_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    summarize = ExactMatchScorer.summarize

    def fragile(self: ExactMatchScorer, scored: Sequence[Scored]) -> list[Metric]:
        for item in scored:
            if "corrupt" in item.record.meta:
                raise ValueError("odd")
        return summarize(self, scored)

    monkeypatch.setattr(ExactMatchScorer, "summarize", fragile)
    rows = [*records("a", "b"), replace(records("c", corrupt=1)[0], id="c")]
    found = check_scoring(BenchmarkPipeline(declared("exact_match")), rows)
    reasons = {key: bad.reason for key, bad in found.bad.items()}
    assert (found.scored, reasons) == (2, {"c": "its figures fail: ValueError: odd"})
