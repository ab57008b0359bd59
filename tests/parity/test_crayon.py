"""Parity of the crayon prompt: every golden case, every recorded quantity, and no wrong one passes."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures import fixture_dir
from tests.parity.crayon import compare_crayon

QUANTITIES = {"semantic", "numbering", "object_text", "names_only", "eval_prompt", "demo_prompt", "objects"}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixture_dir("collavo") / "crayon.json").read_text(encoding="utf-8"))
    return found


def wanted(case: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = case["reference"] if case["reference_is_correct"] else case["correct"]
    return found


def test_every_quantity_of_every_case_is_compared_and_equal(golden: dict[str, Any]) -> None:
    results = list(compare_crayon(golden))
    assert [name for name, unequal in results if unequal] == []
    for index, case in enumerate(golden["cases"]):
        compared = {name.split(" ")[0].split(".")[2] for name, _ in results if name.startswith(f"crayon.{index}.")}
        known = (QUANTITIES | {"none", "error"}) & wanted(case).keys()
        assert compared == known, case["title"]
        assert "error" in known or {"eval_prompt", "demo_prompt"} <= known


def shift(key: str) -> Callable[[dict[str, Any]], None]:
    def change(case: dict[str, Any]) -> None:
        wanted(case)[key][3][4] += 1

    return change


def append(key: str) -> Callable[[dict[str, Any]], None]:
    def change(case: dict[str, Any]) -> None:
        wanted(case)[key] += " "

    return change


def move_box(case: dict[str, Any]) -> None:
    wanted(case)["objects"][0]["box"][0] += 1e-3


def double_an_id(case: dict[str, Any]) -> None:
    case["segments"].append(case["segments"][0])


@pytest.mark.parametrize(
    "change", [shift("semantic"), shift("numbering"), append("eval_prompt"), append("demo_prompt"), move_box]
)
def test_a_wrong_value_is_noticed(golden: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    altered = copy.deepcopy(golden)
    needed = "objects" if change is move_box else "semantic"
    change(next(case for case in altered["cases"] if needed in wanted(case)))
    assert sum(unequal for _, unequal in compare_crayon(altered)) == 1


def test_an_error_is_wanted_where_golden_data_says_so(golden: dict[str, Any]) -> None:
    """A doubled id must fail, and a map that is in order must not."""
    altered = copy.deepcopy(golden)
    case = altered["cases"][0]
    case |= {"reference": {"error": "IndexError"}, "correct": {"error": "ValueError"}, "reference_is_correct": False}
    assert sum(unequal for _, unequal in compare_crayon(altered)) == 1
    double_an_id(case)
    assert sum(unequal for _, unequal in compare_crayon(altered)) == 0
