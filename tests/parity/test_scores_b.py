"""Our scores against those of the official scorers: MM-Vet, Q-Bench, MathVista, AI2D and HallusionBench.

Each case is a folder of release-format annotations, predictions or recorded verdicts, and what the benchmark's own
script gave on them. Readers and scorers run as their declarations name them; only the folder differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from datasets.declaration import Benchmark
from datasets.evaluation import Evaluation, evaluate
from datasets.evaluation.hallusion import Checked
from datasets.evaluation.judges.recorded import read_verdicts
from datasets.evaluation.judging import evaluate_judged
from datasets.registration import load_records
from datasets.types import Metric, Record, Scored
from pipeline.catalog import load_catalog
from tests.fixtures import fixture_dir

EXACT = 1e-9


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder of the fixtures, read as a declaration says."""

    folder: Path
    benchmark: Benchmark
    records: dict[str, Record]

    def load(self, name: str = "expected.json") -> Any:
        """A JSON file of the case."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def score(self, predictions: Mapping[str, str]) -> Evaluation:
        """Score predictions for some of the records."""
        return evaluate(self.benchmark, [(self.records[key], text) for key, text in predictions.items()])

    def score_with(self, verdicts: str | Mapping[str, Mapping[str, str]], texts: Mapping[str, str]) -> Evaluation:
        """Score with recorded verdicts (a file of the case, or given) for the records that they are on."""
        given = read_verdicts(self.folder / verdicts) if isinstance(verdicts, str) else verdicts
        return evaluate_judged(self.benchmark, [(self.records[key], texts.get(key, "")) for key in given], given)


def open_case(dataset: str, case: str = "", scoring: Mapping[str, Any] | None = None, **data: Any) -> Case:
    """Read the annotations of a case."""
    declared = load_catalog().benchmarks[dataset]
    benchmark = replace(
        declared, data={**declared.data, **data, "root": "."}, scoring={**declared.scoring, **(scoring or {})}
    )
    records, bad = load_records(benchmark, [fixture_dir(f"benchmarks/{dataset}")])
    assert bad == []
    return Case(
        folder=fixture_dir(f"benchmarks/{dataset}/{case}".rstrip("/")),
        benchmark=benchmark,
        records={record.id: record for record in records},
    )


def rows(evaluation: Evaluation) -> dict[str, Metric]:
    """Figures by ``group/name``."""
    return {f"{m.group}/{m.name}".removeprefix("/"): m for m in evaluation.metrics}


def value(metric: Metric) -> float:
    """A figure that must be there."""
    assert metric.value is not None, metric
    return float(metric.value)


def verdict_of(scored: Scored) -> str:
    """The verdict behind a score of HallusionBench."""
    assert isinstance(scored.score, Checked)
    return scored.score.verdict


MMVET = [
    "",
    "published_llava_v1.5_7b_1run",
    "published_llava_v1.5_7b_3run",
    "published_llava_v1.5_13b_1run",
    "published_llava_v1.5_13b_3run",
]


@pytest.mark.parametrize("name", MMVET)
def test_mmvet_tables_equal_the_official_aggregation(name: str) -> None:
    case = open_case("mm-vet", name)
    expected = case.load()
    ours = rows(case.score_with("grades.json", {}))
    for table in ("capability", "integration"):
        official = dict(expected["metrics"]["rounded_10"][table])
        runs = [value(ours[f"run/{number}/total"]) for number in range(1, expected["num_run"] + 1)]
        assert [round(run, 10) for run in runs] == official.pop("runs")
        totals = {key: value(ours[key]) for key in ("total", "std")}
        parts = {n.split("/")[1]: value(m) for n, m in ours.items() if n.startswith(f"{table}/")}
        figures = {**parts, **totals}
        assert {key: round(figure, 10) for key, figure in figures.items()} == pytest.approx(official, abs=EXACT)
        rounded = {key: v for key, v in expected["metrics"]["rounded_1"][table].items() if key != "runs"}
        assert {key: round(figure, 1) for key, figure in figures.items()} == rounded
    assert ours["total"].num == 218


@pytest.mark.parametrize("name", MMVET[1:])
def test_mmvet_gives_the_published_tables(name: str) -> None:
    case = open_case("mm-vet", name)
    ours = rows(case.score_with("grades.json", {}))
    for table in ("capability", "integration"):
        published = {k: v for k, v in case.load()["published"][table].items() if k not in ("runs", "std", "total")}
        parts = {n.split("/")[1]: m for n, m in ours.items() if n.startswith(f"{table}/")}
        assert {key: f"{value(m):.1f}" for key, m in parts.items()} == published
    assert f"{value(ours['total']):.1f}" == case.load()["published"]["capability"]["total"]


def test_mmvet_without_grades_has_no_score() -> None:
    case = open_case("mm-vet")
    evaluation = case.score(case.load("predictions.json"))
    assert {scored.score.value for scored in evaluation.scored} == {None}
    assert rows(evaluation)["total"].value is None
    assert rows(evaluation)["unscored"].value == 218


TYPES, CONCERNS = ("yes-or-no", "what", "how"), ("distortion", "other", "in-context distortion", "in-context other")


def test_qbench_equals_the_rule_of_its_authors() -> None:
    case = open_case("qbench_dev")
    expected = case.load()
    evaluation = case.score(case.load("predictions.json"))
    ours = rows(evaluation)
    assert value(ours["accuracy"]) == pytest.approx(expected["metrics"]["overall"], abs=EXACT)
    for key, names in (("type", TYPES), ("concern", CONCERNS)):
        for number, official in expected["metrics"][f"by_{key}"].items():
            row = ours[f"{key}/{names[int(number)]}/accuracy"]
            assert value(row) == pytest.approx(official["accuracy"], abs=EXACT)
            assert row.num == official["count"]
    assert {s.record.id: s.score.value for s in evaluation.scored} == expected["per_question"]


def test_qbench_as_released_and_as_vlmevalkit_reads_it() -> None:
    released = open_case("qbench_dev", scoring={"rule": "qbench_released"})
    original = released.load()["collavo_original"]
    evaluation = released.score(released.load("predictions.json"))
    assert value(rows(evaluation)["accuracy"]) == pytest.approx(original["overall"], abs=EXACT)
    assert {s.record.id: s.score.value for s in evaluation.scored} == original["per_question"]
    matched = replace(released.benchmark, scorer="choice", scoring={"rule": "mmbench"})
    evaluation = replace(released, benchmark=matched).score(released.load("predictions.json"))
    exact = released.load()["vlmevalkit_exact_matching"]
    assert value(rows(evaluation)["accuracy"]) == pytest.approx(exact["overall"], abs=EXACT)
    assert {s.record.id: s.score.value for s in evaluation.scored} == exact["per_question"]


MATHVISTA = [
    "",
    *(
        f"published_{name}"
        for name in (
            "bard",
            "claude",
            "frequent_guess",
            "gpt4",
            "idefics_9b_instruct",
            "instruct_blip2_vicuna_13b",
            "llama_adapter_v2",
            "llava_llama_2_13b",
            "llavar",
            "minigpt4_llama2",
            "mplugowl_7b_ft",
            "random_guess",
        )
    ),
]


def check_mathvista(evaluation: Evaluation, official: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare all tables."""
    ours = rows(evaluation)
    average = official["average"]
    assert value(ours["accuracy"]) == pytest.approx(average["accuracy"], abs=EXACT)
    assert (ours["correct"].value, ours["correct"].num) == (average["correct"], average["total"])
    for key, table in official.items():
        if key != "average":
            parts = {n.split("/")[1]: m for n, m in ours.items() if n.startswith(f"{key}/")}
            accuracies = {n: row["accuracy"] for n, row in table.items()}
            assert {n: value(m) for n, m in parts.items()} == pytest.approx(accuracies, abs=EXACT)
            assert {n: m.num for n, m in parts.items()} == {n: row["total"] for n, row in table.items()}


def check_answers(evaluation: Evaluation, official: Mapping[str, tuple[str | None, int]]) -> None:
    """Compare what each text came to, and whether it is right."""
    ours = {s.record.id: [s.score.extracted, s.score.value] for s in evaluation.scored}
    assert ours == {key: [answer or "", right] for key, (answer, right) in official.items()}


@pytest.mark.parametrize("name", MATHVISTA)
def test_mathvista_equals_calculate_score(name: str) -> None:
    case = open_case("mathvista_testmini", name)
    expected = case.load()
    evaluation = case.score_with("extractions.json", {})
    check_mathvista(evaluation, expected["metrics"])
    check_answers(evaluation, expected["per_question"])
    strict = expected["metrics_ignore_empty_extractions"]["average"]["accuracy"]
    assert value(rows(evaluation)["accuracy_ignoring_empty"]) == pytest.approx(strict, abs=EXACT)


@pytest.mark.parametrize("name", MATHVISTA[1:])
def test_mathvista_gives_the_published_scores(name: str) -> None:
    case = open_case("mathvista_testmini", name)
    expected = case.load()
    scored = {s.record.id: s for s in case.score_with("extractions.json", {}).scored}
    changed = expected.get("differences_to_published_file", {})
    correct = sum(s.score.value == 1.0 for key, s in scored.items() if key not in changed)
    correct += sum(row["published"][1] for row in changed.values())
    assert correct == expected["published"]["correct"]
    for key, row in changed.items():
        assert [scored[key].score.extracted, scored[key].score.value] == row["this_commit"]


@pytest.mark.parametrize(("quick", "part"), [(False, "without"), (True, "with")])
def test_mathvista_without_a_judge_equals_the_rules(quick: bool, part: str) -> None:
    case = open_case("mathvista_testmini", scoring={"quick_extract": quick})
    official = case.load()["rule_only_extraction"][f"score_{part}_quick_extract"]
    evaluation = case.score(case.load("predictions.json"))
    assert value(rows(evaluation)["accuracy"]) == pytest.approx(official["average"]["accuracy"], abs=EXACT)
    check_answers(evaluation, official["per_question"])


def test_ai2d_equals_lmms_eval_and_vlmevalkit() -> None:
    for rule, key in (("ai2d", None), ("mmbench", "vlmevalkit_exact_matching")):
        case = open_case("ai2d", scoring={"rule": rule})
        expected = case.load() if key is None else case.load()[key]
        evaluation = case.score(case.load("predictions.json"))
        accuracy = expected["metrics"]["accuracy"] if key is None else expected["accuracy"]
        assert value(rows(evaluation)["accuracy"]) == pytest.approx(accuracy, abs=EXACT)
        assert {s.record.id: s.score.value for s in evaluation.scored} == expected["per_question"]
        assert len(evaluation.scored) == 79


def test_ai2d_as_released() -> None:
    case = open_case("ai2d", scoring={"rule": "ai2d_released"})
    original = case.load()["collavo_original"]
    evaluation = case.score(case.load("predictions.json"))
    accuracy = original["evaluator_accuracy_counting_no_capital_as_wrong"]
    assert value(rows(evaluation)["accuracy"]) == pytest.approx(accuracy, abs=EXACT)
    # The release went on with a capital that no option has; it is then not the right one either.
    capitals = {k: v if v in tuple("ABCD") else "" for k, v in original["first_capital"].items()}
    assert {s.record.id: s.score.extracted for s in evaluation.scored} == capitals
    offline = open_case("ai2d", scoring={"rule": "ai2d_released_offline"})
    ours = rows(offline.score(offline.load("predictions.json")))
    assert value(ours["accuracy"]) == pytest.approx(original["offline_script"]["accuracy"], abs=EXACT)


def test_ai2d_reads_the_same_from_the_release() -> None:
    assert open_case("ai2d").records == open_case("ai2d", file="absent.json").records


DENOMINATORS = {"questions": "aAcc", "pairs": "qAcc", "figures": "fAcc", "easy_pairs": "easy_aAcc"} | {
    "hard_pairs": "hard_aAcc"
}


def check_hallusion(evaluation: Evaluation, official: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare every figure of all questions and of both categories."""
    ours = rows(evaluation)
    for group, figures in official.items():
        prefix = "" if group == "all" else f"{group}/"
        for key, figure in figures.items():
            if key == "counts":
                assert {n: ours[prefix + m].num for n, m in DENOMINATORS.items()} == {
                    n: figure[n] for n in DENOMINATORS
                }
            elif key == "errors":
                assert {name: ours[prefix + name].value for name in figure} == figure
            elif key == "yes_no_bias":
                bias = [value(ours[prefix + name]) for name in ("yes_diff", "fp_ratio")]
                assert bias == pytest.approx([figure["diff"], figure["fp"]], abs=EXACT)
            else:
                scale = 1 if key == "fig_score" else 100
                assert scale * value(ours[prefix + key]) == pytest.approx(figure, abs=EXACT), (group, key)


def test_hallusionbench_equals_the_official_aggregation() -> None:
    case = open_case("hallusionbench")
    check_hallusion(case.score_with("judgements.json", case.load("predictions.json")), case.load()["metrics"])


def test_hallusionbench_without_a_judge() -> None:
    case = open_case("hallusionbench")
    texts, offline = case.load("predictions.json"), case.load()["offline_rule_judge"]
    evaluation = case.score(texts)
    assert {s.record.id: verdict_of(s) for s in evaluation.scored} == offline["verdicts"]
    without_errors = {g: {k: v for k, v in f.items() if k != "errors"} for g, f in offline["metrics"].items()}
    check_hallusion(evaluation, without_errors)
    # Only a judge says which answers agree; with what it said, errors are told apart as by the official script.
    said = read_verdicts(case.folder / "judgements.json")
    verdicts = {key: {**said[key], "correctness": verdict} for key, verdict in offline["verdicts"].items()}
    check_hallusion(case.score_with(verdicts, texts), offline["metrics"])


def test_hallusionbench_as_vlmevalkit_and_as_released() -> None:
    case = open_case("hallusionbench", scoring={"rule": "hallusion_vlmevalkit"})
    texts = case.load("predictions.json")
    ours, exact = rows(case.score(texts)), case.load()["vlmevalkit_exact_matching"]
    assert ours["aAcc"].num == exact["count"]
    for group, figures in exact["metrics"].items():
        prefix = "" if group == "Overall" else f"{group}/"
        for name, figure in figures.items():
            assert 100 * value(ours[prefix + name]) == pytest.approx(figure, abs=EXACT), (group, name)
    released = open_case("hallusionbench", scoring={"rule": "hallusion_released"}, text_only=False)
    original = released.load()["collavo_original"]["metrics"]["accuracy"]
    ours = rows(released.score({key: texts[key] for key in released.records}))
    assert 100 * value(ours["aAcc"]) == pytest.approx(original, abs=EXACT)
    assert ours["aAcc"].num == 951
