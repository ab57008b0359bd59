"""Our scores against those of the official scorers: GQA, ScienceQA, TextVQA, MME, MMBench and SEED-Bench.

Each case is a folder of release-format annotations, predictions, and what the benchmark's own script gave on them.
Readers and scorers run as their declarations name them; only the folder differs.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets.evaluation.circular import hits
from datasets.evaluation.predictions import join, unanswered, unknown
from datasets.options import build_options
from datasets.types import BadRecord, Metric, Record, Scored
from tests.fixtures import fixture_dir

DECLARATIONS = Path(__file__).parents[2] / "configs" / "benchmarks"
EXACT = 1e-9


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What our evaluation of a case gave."""

    scored: dict[str, Scored]
    metrics: dict[str, Metric]

    def value(self, name: str) -> float:
        """A figure by ``group/name``."""
        value = self.metrics[name].value
        assert value is not None, name
        return float(value)


def evaluate(
    name: str,
    annotations: str,
    predictions: Mapping[str, str],
    *,
    data: Mapping[str, Any] | None = None,
    scoring: Mapping[str, Any] | None = None,
) -> Outcome:
    """Read, score and sum up with the modules that a declaration names, on another folder."""
    declared = yaml.safe_load((DECLARATIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    files = {**declared["data"], **(data or {}), "root": "."}
    reader = importlib.import_module(f"datasets.registration.{files.pop('reader')}")
    read = list(reader.read([fixture_dir(annotations)], build_options(reader.Options, files, name)))
    assert [item for item in read if isinstance(item, BadRecord)] == []
    return judge(declared["scorer"], [item for item in read if isinstance(item, Record)], predictions, scoring)


def judge(
    scorer: Mapping[str, Any],
    records: list[Record],
    predictions: Mapping[str, str],
    scoring: Mapping[str, Any] | None = None,
) -> Outcome:
    """Score the predictions for records."""
    settings = {**scorer, **(scoring or {})}
    module = importlib.import_module(f"datasets.evaluation.{settings.pop('kind')}")
    options = build_options(module.Options, settings, "scorer")
    assert unknown(records, predictions) == []
    scored = [
        unanswered(record)
        if text is None
        else Scored(record=record, text=text, score=module.score(record, text, options))
        for record, text in join(records, predictions)
    ]
    metrics = {f"{m.group}/{m.name}".removeprefix("/"): m for m in module.summarize(scored, options)}
    return Outcome(scored={s.record.id: s for s in scored}, metrics=metrics)


def load(case: str, name: str = "expected.json") -> Any:
    """A JSON file of a case."""
    return json.loads((fixture_dir(f"benchmarks/{case}") / name).read_text(encoding="utf-8"))


def only(predictions: Mapping[str, str], wanted: Mapping[str, Any]) -> dict[str, str]:
    """The predictions for some ids."""
    return {key: text for key, text in predictions.items() if key in wanted}


@pytest.mark.parametrize(("conversion", "key"), [("llava", "metrics"), ("none", "metrics_raw_text")])
def test_gqa_tables_equal_the_official_script(conversion: str, key: str) -> None:
    case = "gqa_testdev_balanced"
    expected = load(case)
    ours = evaluate("gqa", f"benchmarks/{case}", load(case, "predictions.json"), scoring={"conversion": conversion})
    for figure, name in (("accuracy", "accuracy"), ("binary", "binary/accuracy"), ("open", "open/accuracy")):
        assert 100 * ours.value(name) == pytest.approx(expected[key][figure], abs=EXACT)
    assert ours.value("distribution") == pytest.approx(expected[key]["distribution"], abs=EXACT)
    for table, group in (
        ("StructuralType", "structural"),
        ("SemanticType", "semantic"),
        ("Steps", "steps"),
        ("Length", "words"),
    ):
        official = expected[key][f"accuracyPer{table}"]
        rows = {n.split("/")[1]: m for n, m in ours.metrics.items() if n.startswith(f"{group}/")}
        assert set(rows) == set(official)
        for row, (accuracy, num) in official.items():
            assert (100 * rows[row].value, rows[row].num) == (pytest.approx(accuracy, abs=EXACT), num)


def test_gqa_verdicts_equal_the_official_script() -> None:
    expected = load("gqa_testdev_balanced")["per_question"]
    ours = evaluate("gqa", "benchmarks/gqa_testdev_balanced", load("gqa_testdev_balanced", "predictions.json"))
    assert {key: s.score.value for key, s in ours.scored.items()} == expected


SCIENCEQA = [
    "scienceqa_test",
    "scienceqa_test/published_llava_13b_v0",
    "scienceqa_test/published_llava_lcs_558k_vicuna_v1.3_13b",
    "scienceqa_test/published_llava_v1.5_13b",
]


@pytest.mark.parametrize("case", SCIENCEQA)
def test_scienceqa_equals_the_llava_script(case: str) -> None:
    expected = load(case)
    split = {"split": expected.get("split", "test"), "image_only": False}
    predictions = load(case, "predictions.json")
    ours = evaluate("scienceqa", "benchmarks/scienceqa_test", predictions, data=split)
    official = expected["metrics"]
    assert 100 * ours.value("accuracy") == pytest.approx(official["accuracy"], abs=EXACT)
    assert 100 * ours.value("IMG/accuracy") == pytest.approx(official["img_accuracy"], abs=EXACT)
    counts = [ours.metrics[n] for n in ("correct", "IMG/correct")]
    assert [(m.value, m.num) for m in counts] == [
        (official["correct"], official["total"]),
        (official["img_correct"], official["img_total"]),
    ]
    for key, (letter, correct) in expected["per_question"].items():
        score = ours.scored[key].score
        assert (score.extracted or "FAILED", score.value or 0) == (letter, correct)


@pytest.mark.parametrize("case", SCIENCEQA)
def test_scienceqa_images_only_as_declared_and_as_released(case: str) -> None:
    expected = load(case)
    data = {"split": expected.get("split", "test")}
    problems = load("scienceqa_test", "problems.json")
    predictions = {key: text for key, text in load(case, "predictions.json").items() if problems[key]["image"]}
    ours = evaluate("scienceqa", "benchmarks/scienceqa_test", predictions, data=data)
    assert 100 * ours.value("IMG/accuracy") == pytest.approx(expected["metrics"]["img_accuracy"], abs=EXACT)
    released = evaluate(
        "scienceqa", "benchmarks/scienceqa_test", predictions, data=data, scoring={"rule": "scienceqa_released"}
    )
    original = expected["collavo_original"]["metrics"]
    assert 100 * released.value("accuracy") == pytest.approx(original["accuracy"], abs=EXACT)
    assert (released.metrics["correct"].value, released.metrics["accuracy"].num) == (
        original["correct"],
        original["count"],
    )


@pytest.mark.parametrize("case", ["textvqa_val", "textvqa_val/real_llava_v1.5_13b"])
def test_textvqa_equals_the_m4c_evaluator(case: str) -> None:
    expected = load(case)
    ours = evaluate("textvqa", f"benchmarks/{case}", load(case, "predictions.json"))
    assert ours.value("accuracy") == pytest.approx(expected["metrics"]["accuracy"], abs=EXACT)
    assert ours.metrics["accuracy"].num == expected["metrics"]["count"]
    for key, official in expected["per_question"].items():
        score = ours.scored[key].score
        assert score.extracted == official["normalised_prediction"]
        assert score.value == pytest.approx(official["score"], abs=EXACT)


MME = ["mme", "mme/published_lavin_13b", "mme/published_llava_v1.5_13b"]


@pytest.mark.parametrize("case", MME)
def test_mme_equals_the_evaluation_tool(case: str) -> None:
    expected = load(case)
    ours = evaluate("mme", "benchmarks/mme/annotations", load(case, "predictions.json"))
    for task, official in expected["metrics"]["tasks"].items():
        for name, figure in official.items():
            assert ours.value(f"{task}/{name}") == pytest.approx(figure, abs=EXACT), (task, name)
    for total in ("Perception", "Cognition"):
        assert ours.value(f"{total.lower()}/score") == pytest.approx(expected["metrics"]["total"][total], abs=EXACT)
    assert {key: s.score.extracted or "other" for key, s in ours.scored.items()} == expected["per_question"]


@pytest.mark.parametrize("case", MME[1:])
def test_mme_gives_the_published_leaderboard(case: str) -> None:
    ours = evaluate("mme", "benchmarks/mme/annotations", load(case, "predictions.json"))
    for name, published in load(case)["published"]["scores"].items():
        group = {"Perception": "perception", "Cognition": "cognition"}.get(name, name)
        # The leaderboard cuts digits off as often as it rounds: 1531.319 stands there as 1531.31, 963.611 as 963.6.
        assert ours.value(f"{group}/score") == pytest.approx(published, abs=0.012)


MMBENCH = ["mmbench", "mmbench_cn", "mmbench/published_llava_v1.5_13b"]
PROTOCOLS = {
    "circular": "circular_accuracy",
    "vanilla_first_pass_only": "first_pass_accuracy",
    "vanilla_all_rows": "row_accuracy",
}


@pytest.mark.parametrize("case", MMBENCH)
def test_mmbench_equals_vlmevalkit(case: str) -> None:
    expected = load(case)
    ours = evaluate(
        case.split("/")[0],
        f"benchmarks/{case}",
        load(case, "predictions.json"),
        data={"files": [expected["annotations"]]},
    )
    for protocol, name in PROTOCOLS.items():
        official = {key: value for key, value in expected[protocol]["metrics"].items() if key != "split"}
        tables = {n: m.value for n, m in ours.metrics.items() if n.endswith(f"/{name}")}
        assert ours.value(name) == pytest.approx(official.pop("Overall"), abs=EXACT)
        assert {n.split("/")[1]: value for n, value in tables.items()} == pytest.approx(official, abs=EXACT)
        assert ours.metrics[name].num == expected[protocol].get("groups", expected[protocol].get("rows"))
    extracted = {key: s.score.extracted or None for key, s in ours.scored.items()}
    assert extracted == expected["rule_based_extraction"]
    assert {key: s.score.value for key, s in ours.scored.items()} == expected["vanilla_all_rows"]["per_row_hit"]


@pytest.mark.parametrize("case", MMBENCH)
def test_mmbench_groups_equal_vlmevalkit(case: str) -> None:
    expected = load(case)
    data = {"files": [expected["annotations"]]}
    ours = evaluate(case.split("/")[0], f"benchmarks/{case}", load(case, "predictions.json"), data=data)
    assert hits(list(ours.scored.values())) == expected["circular"]["per_group_hit"]


def test_mmbench_gives_the_published_number() -> None:
    case = "mmbench/published_llava_v1.5_13b"
    expected = load(case)
    data = {"files": [expected["annotations"]]}
    ours = evaluate("mmbench", f"benchmarks/{case}", load(case, "predictions.json"), data=data)
    published = expected["published"]["circular_accuracy_percent"]
    assert round(100 * ours.value("circular_accuracy"), 1) == published


@pytest.mark.parametrize("case", ["seed", "seed/unanswered"])
def test_seed_equals_the_letter_rule(case: str) -> None:
    expected = load(case)["metrics"]
    for kinds, part in ((["image"], "image"), (["image", "video"], "all")):
        if part not in expected:
            continue
        predictions = load(case, "predictions.json")
        wanted = {k: None for k in predictions if part == "all" or not k.startswith("v")}
        ours = evaluate("seed", "benchmarks/seed", only(predictions, wanted), data={"data_types": kinds})
        official = expected[part]
        assert ours.value("accuracy") == pytest.approx(official["accuracy"], abs=EXACT)
        assert sum(s.score.value == 1.0 for s in ours.scored.values()) == official["correct"]
        assert ours.metrics["accuracy"].num == official["total"]
        rows = {n.split("/")[1]: (m.value, m.num) for n, m in ours.metrics.items() if n.startswith("dimension/")}
        assert rows == {
            name: (pytest.approx(row["accuracy"], abs=EXACT), row["count"]) for name, row in official["by_type"].items()
        }


def test_seed_verdicts_and_other_rules() -> None:
    expected = load("seed")
    predictions = only(load("seed", "predictions.json"), expected["per_question"])
    ours = evaluate("seed", "benchmarks/seed", predictions)
    assert {key: s.score.value for key, s in ours.scored.items()} == expected["per_question"]
    released = evaluate("seed", "benchmarks/seed", predictions, scoring={"rule": "seed_released"})
    original = expected["collavo_original"]
    assert released.value("accuracy") == pytest.approx(original["evaluator"]["metrics"]["accuracy"], abs=EXACT)
    first = evaluate("seed", "benchmarks/seed", predictions, scoring={"rule": "first_letter"})
    assert first.value("accuracy") == pytest.approx(expected["lmms_eval"]["accuracy_over_answered"], abs=EXACT)


@pytest.mark.parametrize("case", ["seed/published_gpt4v", "seed/published_llava_v1.5_13b"])
def test_seed_gives_the_published_numbers(case: str) -> None:
    expected = load(case)
    gold = load("seed/published_gpt4v", "answers.json")
    predictions = load(case, "predictions.json")
    options = {"options": dict.fromkeys("ABCD", "")}
    for part, official in expected["metrics"].items():
        wanted = {k: g for k, g in gold.items() if part == "all" or k.startswith("v") == (part == "video")}
        records = [Record(id=k, image=None, fields={}, target=g, meta=options) for k, g in wanted.items()]
        ours = judge({"kind": "choice", "rule": "seed"}, records, only(predictions, wanted))
        assert ours.value("accuracy") == pytest.approx(official["accuracy"], abs=EXACT)
        assert (ours.metrics["accuracy"].num, official["correct"]) == (
            official["total"],
            sum(s.score.value == 1.0 for s in ours.scored.values()),
        )
        published = expected["published"].get(f"{part}_percent")
        assert published is None or round(100 * ours.value("accuracy"), 1) == published
