"""POPE's scores, against its official script and the released evaluation, on the recorded answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.evaluation import Evaluation, evaluate
from datasets.registration import load_records
from pipeline.catalog import load_catalog
from tests.fixtures import fixture_dir

CASES = (".", "degenerate_all_yes", "published_llava_v1.5_13b")
NAMES = {"acc": "accuracy"}


def score_case(case: str, rule: str) -> tuple[Evaluation, dict[str, Any]]:
    folder = fixture_dir("benchmarks/pope") / case
    expected = json.loads((folder / "expected.json").read_text())
    annotations = (folder / expected["annotations"]).parent.resolve()
    splits = [name for name in expected["metrics"] if name != "mean_over_categories"]
    pope = load_catalog().select("pope_test")[0]
    pope = replace(pope, scoring={"rule": rule}, data={"folders": [annotations.name], "splits": splits})
    records, bad = load_records(pope, [Path(annotations.parent)])
    assert bad == []
    predictions = json.loads((folder / "predictions.json").read_text())
    assert {record.id for record in records} == predictions.keys()
    return evaluate(pope, [(record, predictions[record.id]) for record in records]), expected


@pytest.mark.parametrize("case", CASES)
def test_official_script(case: str) -> None:
    evaluation, expected = score_case(case, "pope")
    ours = {(metric.group, metric.name): metric.value for metric in evaluation.metrics}
    for group, figures in expected["metrics"].items():
        for name, value in figures.items():
            got = ours["mean" if group == "mean_over_categories" else group, NAMES.get(name, name)]
            assert got == (value if isinstance(value, int) else pytest.approx(value, abs=1e-9)), (group, name)
    extracted = {item.record.id: item.score.extracted for item in evaluation.scored}
    assert extracted == expected["per_question"]


def test_published_f1() -> None:
    evaluation, expected = score_case("published_llava_v1.5_13b", "pope")
    ours = {metric.group: metric.value for metric in evaluation.metrics if metric.name == "f1"}
    for group, value in expected["published"]["f1"].items():
        assert round(100 * (ours[group] or 0), 1) == value
    assert round(100 * (ours["mean"] or 0), 1) == expected["published"]["mean_f1"]


@pytest.mark.parametrize("case", CASES)
def test_released_evaluation(case: str) -> None:
    evaluation, expected = score_case(case, "pope_released")
    ours = {(metric.group, metric.name): metric.value for metric in evaluation.metrics}
    for group, figures in expected["collavo_original"]["metrics"].items():
        for name, value in (figures or {}).items():
            assert ours[group, name] == pytest.approx(value, abs=1e-9), (group, name)
