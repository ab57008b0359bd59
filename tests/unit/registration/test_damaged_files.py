"""Release files with one value replaced: whatever it is, readers give records and named faults, or one message."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.registration import gqa, scienceqa, seed, textvqa
from datasets.registration.base import Reader
from datasets.types import BadRecord, DataError, Record
from tests.limits import examples

from .test_questions_in_json import PROMPT, ROSETTA, gqa_question, problem, seed_question, text_question

FILES: dict[type[Reader], dict[str, Any]] = {
    gqa.GqaReader: {"GQA/testdev_balanced_questions.json": {"1": gqa_question(), "2": gqa_question(groups=None)}},
    scienceqa.ScienceQaReader: {
        "ScienceQA/problems.json": {"1": problem(), "2": problem()},
        "ScienceQA/pid_splits.json": {"test": ["1", "2"]},
    },
    textvqa.TextVqaReader: {
        "TextVQA/TextVQA_0.5.1_val.json": {"data": [text_question()]},
        "TextVQA/TextVQA_Rosetta_OCR_v0.2_val.json": ROSETTA,
    },
    seed.SeedReader: {
        "SEED-Bench/SEED-Bench.json": {
            "questions": [seed_question("1"), seed_question("2")],
            "question_type": {"Instances Counting": 5},
        }
    },
}
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([]), st.just({}), st.just([[1]])
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    result = copy.copy(value)
    result[path[0]] = replaced(value[path[0]], path[1:], new)
    return result


@pytest.mark.parametrize("reader", FILES, ids=lambda r: r.__name__)
@settings(max_examples=examples(150))
@given(data=st.data())
def test_one_replaced_value(reader: type[Reader], data: st.DataObject, tmp_path: Path) -> None:
    damaged = data.draw(st.sampled_from(sorted(FILES[reader])))
    content = FILES[reader][damaged]
    content = replaced(content, data.draw(st.sampled_from(list(places(content)))), data.draw(VALUES))
    for name, original in FILES[reader].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content if name == damaged else original), encoding="utf-8")
    try:
        items = list(reader().read([tmp_path]))
    except DataError as error:
        assert str(tmp_path) in str(error)
        return
    assert all(isinstance(item, (Record, BadRecord)) for item in items)


@given(data=st.data())
def test_one_replaced_value_in_the_list_of_prompts(data: st.DataObject, tmp_path: Path) -> None:
    damaged = replaced([PROMPT], data.draw(st.sampled_from(list(places([PROMPT])))), data.draw(VALUES))
    (tmp_path / "TextVQA").mkdir(exist_ok=True)
    for name, content in (
        ("TextVQA_0.5.1_val.json", {"data": [text_question()]}),
        ("llava_textvqa_val_v051_ocr.json", damaged),
    ):
        (tmp_path / "TextVQA" / name).write_text(json.dumps(content), encoding="utf-8")
    try:
        assert len(list(textvqa.TextVqaReader().read([tmp_path]))) == 1
    except DataError as error:
        assert "llava_textvqa" in str(error)
