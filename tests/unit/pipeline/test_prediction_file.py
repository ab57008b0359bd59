"""The predictions file: what a line says, and that whoever reads it sees what was written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.judges.base import Verdict
from datasets.registration.formats.base64_images import EncodedImage
from datasets.types import DataError, ImageFile
from pipeline.results.browse.prediction import (
    VERDICTS,
    ImageNames,
    Prediction,
    as_line,
    as_lines,
    read_prediction_file,
    target_words,
)
from pipeline.results.join import predictions
from pipeline.results.predictions_file import read_predictions
from pipeline.runtime.files import json_line
from tests.unit.pipeline.test_counts import answered

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PREDICTIONS = st.builds(
    Prediction,
    id=TEXT,
    image=st.none() | TEXT,
    question=TEXT,
    prompt=st.none() | TEXT,
    text=st.none() | TEXT,
    extracted=st.none() | TEXT,
    target=JSON,
    score=st.none() | st.floats(0, 1),
    verdict=st.sampled_from(VERDICTS),
    judge=st.lists(st.fixed_dictionaries({"part": TEXT, "verdict": st.none() | TEXT, "reply": TEXT}), max_size=2),
    group=TEXT,
    finished=st.none() | st.booleans(),
    error=st.none() | TEXT,
    seconds=st.none() | st.floats(0, 1e6),
)


def write(folder: Path, *lines: dict[str, Any]) -> Path:
    file = folder / "predictions.jsonl"
    file.write_bytes(b"".join(map(json_line, lines)))
    return file


@given(rows=st.lists(PREDICTIONS, min_size=1, max_size=4, unique_by=lambda row: row.id))
def test_what_is_written_is_read_back(rows: list[Prediction], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = write(tmp_path_factory.mktemp("rows"), *map(as_line, rows))
    assert read_prediction_file(file) == rows
    given_ones = read_predictions(file)  # as `score` reads it
    assert [(name, one.fields.get("text")) for name, one in given_ones.items()] == [(row.id, row.text) for row in rows]
    assert [one.error for one in given_ones.values()] == [row.error for row in rows]


def test_a_line_says_what_became_of_its_record() -> None:
    kinds = ["right", "wrong", "empty", "withheld", "error"]
    lines = [json.loads(line) for line in as_lines(predictions(answered(kinds, "exact_match", 0))).splitlines()]
    assert [line["verdict"] for line in lines] == ["right", "wrong", "unreadable", "withheld", "error"]
    assert [line["target"] for line in lines] == ["yes", "yes", "yes", None, "yes"]
    assert [line["error"] for line in lines] == [None] * 4 + ["no"]
    assert lines[4]["text"] is None and lines[4]["finished"] is None and lines[0]["finished"] is False


def test_the_judges_words_stand_beside_the_reply() -> None:
    given_ones = answered(["right", "unjudged"], "graded", 0)
    said = [
        Verdict(record="0", part="run1", value="1.0", reply="Full marks: 1.0"),
        Verdict(record="1", part="run2", value=None, failure="timed out"),
    ]
    given_ones = replace(given_ones, judgement=replace(given_ones.judgement, said=said))
    first, second = (json.loads(line) for line in as_lines(predictions(given_ones)).splitlines())
    assert first["judge"] == [{"part": "run1", "verdict": "1.0", "reply": "Full marks: 1.0"}]
    assert second["judge"] == [{"part": "run2", "verdict": None, "reply": "timed out"}]
    assert (first["verdict"], second["verdict"]) == ("partly right", "unscored")


def test_images_are_named_by_path_below_the_root_or_by_hash(tmp_path: Path) -> None:
    names = ImageNames([tmp_path / "one", tmp_path / "two"])
    file = ImageFile(tmp_path / "two" / "coco" / "val" / "1.jpg", "1.jpg")
    assert names.of(file) == "coco/val/1.jpg"
    assert names.of(ImageFile(Path("/elsewhere/1.jpg"), "elsewhere.jpg")) == "elsewhere.jpg"
    inside = EncodedImage(where="table.tsv, row 1", name="abc", text="aGVsbG8=")
    assert names.of(inside) == f"sha256:{hashlib.sha256(b'hello').hexdigest()[:16]}"
    assert names.of(EncodedImage(where="table.tsv, row 2", name="broken", text="?")) == "broken"
    assert names.of(None) is None


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    old = {"prompt": "<q>", "finished": True, "error": None}
    rows = read_prediction_file(
        write(
            tmp_path,
            {"id": "a", "text": "yes", "extracted": "yes", "score": 1.0, **old},
            {"id": "b", "text": "hm", "extracted": "", "score": 0.0, **old},
            {"id": "c", "text": None, "extracted": None, "score": None, **old, "error": "gone"},
        )
    )
    assert [row.verdict for row in rows] == ["right", "unreadable", "error"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "line 2: a second line of record a"),
        ('{"id": "a"', "line 1: not JSON"),
        ('{"id": 7, "text": "x"}', "line 1: not a line of a run's predictions.jsonl"),
        ("[1]", "line 1: not a line of a run's predictions.jsonl"),
        ('{"id": "a", "text": "x", "score": "high"}', "line 1: 'score' should be int or float, got high"),
        ('{"id": "a", "text": "x", "seconds": true}', "line 1: 'seconds' should be"),
        ('{"id": "a", "text": "x", "score": 1e999}', "line 1: 'score' is not a finite number"),
        ('{"id": "a", "text": "x", "judge": [1]}', "line 1: 'judge' should list objects"),
        ("", "holds no predictions"),
    ],
)
def test_faults_are_named_with_their_line(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_text(line)
    with pytest.raises(DataError, match=message):
        read_prediction_file(file)


def test_score_reads_the_seconds(tmp_path: Path) -> None:
    row = as_line(Prediction(id="a", text="yes", question="Is it?", seconds=0.25))
    assert read_predictions(write(tmp_path, row))["a"].seconds == 0.25


def test_targets_in_words() -> None:
    assert target_words(["a", "b", 3]) == "a; b; 3"
    assert (target_words(None), target_words("A"), target_words({"x": [1]})) == ("", "A", '{"x": [1]}')
