"""A run's identity changes with what shapes an answer, and a folder of another run is not continued unasked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.declaration import Benchmark
from datasets.types import ImageFile, Record
from pipeline.run.identity import differences, fingerprint, run_parts, settle
from pipeline.runtime.errors import RunError

BENCHMARK = Benchmark(
    name="toy",
    dataset="toy_test",
    section="TOY",
    title="Toy",
    version=1,
    source="made for this test",
    reader="toy",
    data={"root": "TOY"},
    prompt="{question}",
    num_beams=3,
    max_new_tokens=5,
    scorer="yes_no",
)
RECORD = Record(id="1", image=ImageFile(Path("/a/1.png"), "1.png"), fields={"question": "Is it?"}, target="yes")
ENGINE = {"bits": 4, "checkpoint": "0123"}


def name(benchmark: Benchmark = BENCHMARK, record: Record = RECORD, **engine: object) -> str:
    return fingerprint(run_parts(benchmark, [record], {**ENGINE, **engine}))


@pytest.mark.parametrize(
    "other",
    [
        lambda: name(replace(BENCHMARK, prompt="{question} Answer briefly.")),
        lambda: name(replace(BENCHMARK, num_beams=1)),
        lambda: name(replace(BENCHMARK, max_new_tokens=128)),
        lambda: name(replace(BENCHMARK, data={"root": "ELSEWHERE"})),
        lambda: name(replace(BENCHMARK, scoring={"positive": "no"})),
        lambda: name(record=replace(RECORD, target="no")),
        lambda: name(record=replace(RECORD, image=ImageFile(Path("/a/2.png"), "2.png"))),
        lambda: name(record=replace(RECORD, fields={"question": "Is it not?"})),
        lambda: name(bits=8),
        lambda: name(checkpoint="4567"),
        lambda: name(segmenter="none"),
    ],
)
def test_what_shapes_an_answer_changes_it(other: Callable[[], str]) -> None:
    assert other() != name()


def test_where_the_data_lies_and_titles_do_not() -> None:
    moved = replace(RECORD, image=ImageFile(Path("/elsewhere/1.png"), "1.png"))
    assert name(replace(BENCHMARK, title="The toy"), moved) == name()


def parts(**engine: object) -> dict[str, object]:
    return run_parts(BENCHMARK, [RECORD], {**ENGINE, **engine})


def test_a_new_folder_and_the_same_run_again(tmp_path: Path) -> None:
    file = tmp_path / "toy" / "run.json"
    first = settle(file, parts(), "refuse", {"git_commit": "abc"})
    assert first.accepted == (fingerprint(parts()) + ".0",) and not first.changed
    assert json.loads(file.read_text())["git_commit"] == "abc"
    assert settle(file, parts(), "refuse", {}) == first


def test_another_run_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    settle(file, parts(), "refuse", {})
    before = file.read_bytes()
    with pytest.raises(RunError) as error:
        settle(file, parts(bits=8, segmenter="none"), "refuse", {})
    message = str(error.value)
    assert "engine.bits: 4 -> 8" in message and 'engine.segmenter: nothing -> "none"' in message
    assert "checkpoint" not in message and "EVAL.ON_CHANGE" in message and "SAVE_DIR" in message
    assert file.read_bytes() == before


def test_restart_drops_and_continue_keeps_the_earlier_answers(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    old = settle(file, parts(), "refuse", {}).accepted[0]
    kept = settle(file, parts(bits=8), "continue", {})
    assert kept.accepted == (fingerprint(parts(bits=8)) + ".0", old) and kept.changed
    assert kept.changes == ("engine.bits: 4 -> 8",)
    again = settle(file, parts(bits=8), "refuse", {})
    assert again.accepted == kept.accepted and again.changes == kept.changes and not again.changed
    anew = settle(file, parts(bits=16), "restart", {})
    assert anew.accepted == (fingerprint(parts(bits=16)) + ".1",) and anew.changed and anew.changes == ()
    back = settle(file, parts(), "restart", {})
    assert back.accepted == (fingerprint(parts()) + ".2",) and old not in back.accepted


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"parts": 1, "accepted": []}'])
def test_an_unreadable_description_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(RunError, match="run.json"):
        settle(file, parts(), "restart", {})


def test_differences_name_nested_keys() -> None:
    assert differences({"a": {"b": 1, "c": [1]}}, {"a": {"b": 1, "c": [2]}, "d": None}) == [
        "a.c: [1] -> [2]",
        "d: nothing -> null",
    ]
