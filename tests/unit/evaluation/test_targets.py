"""Targets in the form that scorers compare with: what is normalised, what is refused by name, and what is withheld."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.evaluation import (
    choice,
    circular,
    exact_match,
    gqa,
    graded,
    grounding,
    hallusion,
    mathvista,
    mme,
    per_class,
    qbench,
    relaxed,
    scienceqa,
    vqa_accuracy,
    yes_no,
)
from datasets.evaluation.parsing import targets
from datasets.registration.formats.files import MalformedError
from datasets.types import ImageFile, Record
from tests.limits import examples

NAN = float("nan")
ABSENT = (None, "", "  ", NAN, [], [None], [""], "[]")
OPTIONS = {"A": "cat", "B": "dog", "D": "4", "E": "a"}
PLACE = {"category": "VD", "subcategory": "ocr", "set_id": 3, "figure_id": 0, "question_id": 1.0, "visual_input": "1"}
MULTI = {"question_type": "multi_choice", "answer_type": "text", "choices": "['red', 'blue', '[0, 2]']"}
FREE = {"question_type": "free_form"}


def record(target: Any, /, **meta: Any) -> Record:
    return Record(id="7", image=None, fields={"question": "?"}, target=target, meta=meta)


def prepared(module: ModuleType, target: Any, rule: Any = None, /, **meta: Any) -> Record:
    found: Record = module.prepare(record(target, **meta), rule or module.Options())
    return found


YES_NO: list[tuple[ModuleType, Any, dict[str, Any]]] = [
    (yes_no, None, {}),
    (mme, None, {"pair": "a"}),
    (per_class, per_class.Options(rule="yes_no"), {"class": "dog"}),
    (hallusion, None, PLACE),
]


@pytest.mark.parametrize(("module", "options", "meta"), YES_NO, ids=[m.__name__ for m, _, _ in YES_NO])
def test_yes_and_no_in_every_usual_form(module: ModuleType, options: Any, meta: dict[str, Any]) -> None:
    for said in (
        "yes",
        "Yes",
        "YES",
        " yes. ",
        "y",
        "True",
        "true",
        True,
        1,
        1.0,
        "1",
        "1.0",
        "是",
        ["Yes"],
        "['yes']",
    ):
        assert prepared(module, said, options, **meta).target == "yes", said
    for said in ("no", "No", "NO", "N", "False", False, 0, 0.0, "0", "否", ("no",), ["no", "no"]):
        assert prepared(module, said, options, **meta).target == "no", said
    for said in ABSENT:
        assert prepared(module, said, options, **meta).target is None, said
    for said in ("maybe", 2, -1, "yes or no", "yes, it is", ["yes", "no"], {"answer": "yes"}, "A"):
        with pytest.raises(MalformedError, match="'answer' should be"):
            prepared(module, said, options, **meta)


LETTERS: list[tuple[ModuleType, dict[str, Any]]] = [
    (choice, {}),
    (scienceqa, {}),
    (qbench, {}),
    (circular, {"question": 4, "pass": "0"}),
]


@pytest.mark.parametrize(("module", "meta"), LETTERS, ids=[m.__name__ for m, _ in LETTERS])
def test_letters_in_every_usual_form(module: ModuleType, meta: dict[str, Any]) -> None:
    for said in ("B", "b", "B.", "(B)", "(b) ", "[B]", "B:", "dog", "Dog", "B. dog", "(b) Dog", ["B"], "['dog']"):
        assert prepared(module, said, **meta, **CHOICES).target == "B", said
    for said in ABSENT:
        assert prepared(module, said, **meta, **CHOICES).target is None, said
    for said, why in (
        ("C", "none of the options"),
        ("F", "none of the options"),
        ("horse", "none of the options"),
        ("B. cat", "none of the options"),
        ("a", "may mean A or E"),
        (0, "may count the options from 0 or from 1"),
        ("2", "may count"),
        (True, "none of the options"),
        (["A", "B"], "should be one of the options"),
    ):
        with pytest.raises(MalformedError, match=why):
            prepared(module, said, **meta, **CHOICES)
    for options in ({}, None, "", "A"):
        with pytest.raises(MalformedError, match="has no options"):
            prepared(module, "B", **meta, **{**CHOICES, "options": options})


CHOICES: dict[str, Any] = {"options": OPTIONS}


@given(
    st.sampled_from(sorted(OPTIONS)),
    st.sampled_from(["{}", "({})", "{}.", "{})", " {} ", "[{}]", "{}:"]),
    st.booleans(),
)
def test_a_letter_is_itself_or_refused(letter: str, form: str, lower: bool) -> None:
    said = form.format(letter.lower() if lower else letter)
    try:
        found = targets.letter(record(said, options=OPTIONS)).target
    except MalformedError as error:
        assert said.strip() == "a" and "may mean A or E" in str(error)  # the text of E is "a"
    else:
        assert found == letter or (found == "E" and letter == "A")


def test_numbers_that_are_options() -> None:
    numbers = {"A": "10", "B": "20", "C": "3"}
    assert targets.letter(record(20, options=numbers)).target == "B"
    assert targets.letter(record("3", options=numbers)).target == "C"  # from 1 it is the third one too
    with pytest.raises(MalformedError, match="may count"):
        targets.letter(record(2.0, options={"A": "1", "B": "2", "C": "3"}))


ACCEPTED = [
    ("14", "14"),
    ("['14']", "14"),
    ('["a", "b"]', ["a", "b"]),
    (["a", 3, 2.0], ["a", "3", "2"]),
    (14, "14"),
    (14.0, "14"),
    (0.5, "0.5"),
    (True, "true"),
    ("['it''s", "['it''s"),
    ("[3, 4]", ["3", "4", "[3, 4]"]),
    (["[3, 4]"], ["[3, 4]"]),
    ([{"answer": "a", "answer_id": 1}, {"answer": "b"}], ["a", "b"]),
]


@pytest.mark.parametrize("module", [exact_match, relaxed])
@pytest.mark.parametrize(("said", "target"), ACCEPTED)
def test_accepted_answers_alone_and_in_lists(module: ModuleType, said: Any, target: Any) -> None:
    found = prepared(module, said)
    assert found.target == target
    for answer in [target] if isinstance(target, str) else target:
        assert module.score(found, answer, module.Options()).value == 1.0
    assert module.score(found, "", module.Options()).value == 0.0


@pytest.mark.parametrize("module", [exact_match, relaxed, graded])
def test_withheld_answers_stay_withheld(module: ModuleType) -> None:
    for said in ABSENT:
        assert prepared(module, said).target is None


def test_answers_that_an_empty_reply_would_equal_are_refused() -> None:
    with pytest.raises(MalformedError, match="is nothing when it is normalised"):
        prepared(exact_match, ".")
    assert prepared(exact_match, ".", exact_match.Options(normalise="none")).target == "."
    assert prepared(exact_match, ["a", "letter a"], exact_match.Options(normalise="vqa")).target == "letter a"
    with pytest.raises(MalformedError, match="is nothing once it is converted"):
        prepared(gqa, "...", structural="query")
    with pytest.raises(MalformedError, match="should be a text or a number, got None"):
        prepared(exact_match, ["a", None])


def test_human_answers() -> None:
    assert prepared(vqa_accuracy, str(["2", "two"] * 5)).target == ["2", "two"] * 5
    assert prepared(vqa_accuracy, [1, 1.0, "one"]).target == ["1", "1", "one"]
    for said in ("two", ["two"], "['two']", 2):
        with pytest.raises(MalformedError, match="list of several people's answers"):
            prepared(vqa_accuracy, said)
    different = prepared(vqa_accuracy, list("bcdefghijk"))
    assert vqa_accuracy.highest(different, vqa_accuracy.Options()) == pytest.approx(0.3)


def test_gqa_converts_targets_as_it_converts_replies() -> None:
    found = prepared(gqa, "Yes.", structural="verify")
    assert (found.target, gqa.score(found, "Yes", gqa.Options()).value) == ("yes", 1.0)
    assert prepared(gqa, " Tall Cup ", gqa.Options(conversion="none"), structural="query").target == "Tall Cup"
    with pytest.raises(MalformedError, match="lacks structural, which the scorer 'gqa' needs; data.keep"):
        prepared(gqa, "yes")
    assert prepared(gqa, None).target is None  # of a test split, which has no types either
    with pytest.raises(MalformedError, match="should be one value"):
        prepared(gqa, ["yes", "yeah"], structural="verify")


@pytest.mark.parametrize(
    ("module", "target", "meta", "lacking"),
    [
        (mme, "yes", {}, "lacks pair"),
        (circular, "B", {"options": OPTIONS}, "lacks question, pass"),
        (circular, "B", {"options": OPTIONS, "question": 1}, "lacks pass"),
        (circular, "B", {"options": OPTIONS, "question": 1, "pass": "first"}, "'pass' should be a whole number"),
        (
            hallusion,
            "yes",
            {"category": "VD", "set_id": "1"},
            "lacks subcategory, figure_id, question_id, visual_input",
        ),
        (mathvista, "3", {}, "lacks question_type, answer_type"),
        (mathvista, "3", {**FREE, "answer_type": "number"}, "'answer_type' should be text or integer or float or list"),
        (mathvista, "3", {**MULTI, "choices": None}, "'choices' should be a list"),
        (mathvista, "many", {**FREE, "answer_type": "integer"}, "'answer' should be of the kind integer"),
        (mathvista, "2.5", {**FREE, "answer_type": "integer"}, "'answer' should be of the kind integer"),
        (mathvista, "3.1", {**FREE, "answer_type": "float", "precision": "x"}, "'precision' should be a whole number"),
        (mathvista, "green", MULTI, "none of the options"),
        (per_class, "dog", {"names": ["dog"]}, "lacks class"),
        (per_class, "dog", {"class": "dog"}, "lacks names"),
        (per_class, "horse", {"class": "dog", "names": ["dog"]}, "is the name of no class"),
    ],
)
def test_what_a_scorer_cannot_do_without(module: ModuleType, target: Any, meta: dict[str, Any], lacking: str) -> None:
    with pytest.raises(MalformedError, match=lacking):
        prepared(module, target, per_class.Options(rule="class_name") if module is per_class else None, **meta)


@pytest.mark.parametrize(
    ("target", "meta", "form", "precision"),
    [
        ("B", MULTI, "blue", None),
        ("blue", MULTI, "blue", None),
        ("[0, 2]", MULTI, "[0, 2]", None),
        (14.0, {**FREE, "answer_type": "integer"}, "14", None),
        ("['14']", {**FREE, "answer_type": "integer"}, "14", None),
        ("3.10", {**FREE, "answer_type": "float", "precision": 1.0}, "3.1", 1),
        ("3.14", {**FREE, "answer_type": "float"}, "3.14", 2),
        (3, {**FREE, "answer_type": "float"}, "3.0", 1),
        ([None, "3.14"], {**FREE, "answer_type": "float"}, "3.14", 2),
        ("[1, 2]", {**FREE, "answer_type": "list"}, "[1, 2]", None),
        ([1, 2], {**FREE, "answer_type": "list"}, "[1, 2]", None),
    ],
)
def test_mathvista_answers(target: Any, meta: dict[str, Any], form: str, precision: int | None) -> None:
    found = prepared(mathvista, target, **meta)
    assert (found.target, found.meta["precision"]) == (form, precision)
    said = mathvista.own_verdict(found, "verdict", mathvista.Options())
    assert mathvista.judged(found, "long text", {"verdict": said}, mathvista.Options()).value == 1.0


def test_hallusionbench_places_are_texts() -> None:
    found = prepared(hallusion, 1, **{**PLACE, "category": "VS"})
    assert (found.meta["figure_id"], found.meta["question_id"], found.meta["reference"]) == ("0", "1", "yes")
    assert hallusion.score(found, "I cannot tell", hallusion.Options()).value == 1.0  # there is no image to tell from


def test_capabilities_in_a_cell() -> None:
    assert prepared(graded, "a", capability="ocr, math").meta["capability"] == ["ocr", "math"]
    assert prepared(graded, "a", capability="['ocr']").meta["capability"] == ["ocr"]
    assert prepared(graded, ["a", 2]).target == "a<OR>2"


def test_classes_by_their_names() -> None:
    found = prepared(
        per_class, "Dogs", per_class.Options(rule="class_name"), **{"class": "dog", "names": "['cat', 'dog']"}
    )
    assert (found.target, found.meta["names"]) == ("dog", ["cat", "dog"])


# --- grounding ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """An image in memory."""

    data: bytes
    name: str = "x.jpg"

    def read(self) -> bytes:
        return self.data


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
def test_an_image_knows_its_size(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    (tmp_path / "x.jpg").write_bytes(jpeg(40, 20, orientation))
    for image in (Encoded(jpeg(40, 20, orientation)), ImageFile(tmp_path / "x.jpg", "x.jpg")):
        found = grounding.prepare(Record(id="1", image=image, fields={}, target="[1, 2, 11, 12]"), grounding.Options())
        assert (found.meta["width"], found.meta["height"]) == size
        reply = grounding.own_reply(found, grounding.Options())
        assert grounding.score(found, reply, grounding.Options()).iou == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ([1, 2, 3], "should be a box of four numbers"),
        ("here", "should be a box of four numbers"),
        ([1, 2, NAN, 4], "should be a box of four numbers"),
        ([30, 20, 10, 10], "encloses nothing; it is read as xyxy"),
        ([5, 5, 5, 9], "encloses nothing"),
        ([200, 200, 300, 300], "lies outside its image of 100 x 50 pixels"),
    ],
)
def test_boxes_that_cannot_be_found(target: Any, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        prepared(grounding, target, width="100", height=50)


BOXES = [[10, 20, 30, 40], "10 20 30 40", "[10, 20, 30, 40]", [0.1, 0.4, 0.3, 0.8], (10, 20, 30, 40)]


@pytest.mark.parametrize("target", BOXES)
def test_boxes_in_every_usual_form(target: Any) -> None:
    found = prepared(grounding, target, width="100", height="50")
    assert found.target == pytest.approx([10, 20, 30, 40])
    assert (found.meta["width"], found.meta["height"]) == (100.0, 50.0)


def test_an_image_without_a_size(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="has neither width and height"):
        prepared(grounding, [1, 2, 3, 4])
    for image, why in ((Encoded(b"none"), "cannot be read"), (ImageFile(tmp_path / "no.jpg", "no.jpg"), r"no\.jpg")):
        with pytest.raises(MalformedError, match=f"has no width and height .*{why}"):
            grounding.prepare(Record(id="1", image=image, fields={}, target=[1, 2, 3, 4]), grounding.Options())


BOX = st.tuples(*[st.integers(0, 400)] * 4).filter(lambda b: b[2] > 0 and b[3] > 0)


@given(BOX, st.integers(20, 500), st.integers(20, 500), st.sampled_from([0.0, 1.0, 100.0, 1000.0]), st.booleans())
def test_a_box_is_refused_or_gets_full_credit(
    box: tuple[int, int, int, int], width: int, height: int, scale: float, xywh: bool
) -> None:
    options = grounding.Options(scale=scale, box="xywh" if xywh else "xyxy")
    try:
        found = grounding.prepare(record(list(box), width=width, height=height), options)
    except MalformedError as error:
        assert "encloses nothing" in str(error) or "outside its image" in str(error)
        return
    x1, y1, x2, y2 = grounding._target(found, options)
    inside = max(0, min(x2, width) - x1) * max(0, min(y2, height) - y1)
    credit = grounding.score(found, grounding.own_reply(found, options), options)
    assert (credit.value == 1.0) == (inside > 0.5 * (x2 - x1) * (y2 - y1)) or abs((credit.iou or 0) - 0.5) < 1e-3


# --- anything at all ------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
SCORERS: list[tuple[ModuleType, Any, dict[str, Any]]] = [
    *YES_NO,
    *((module, None, {**meta, **CHOICES}) for module, meta in LETTERS),
    (exact_match, None, {}),
    (exact_match, exact_match.Options(normalise="vqa"), {}),
    (relaxed, None, {}),
    (vqa_accuracy, None, {}),
    (gqa, None, {"structural": "query"}),
    (graded, None, {}),
    (mathvista, None, {**FREE, "answer_type": "float"}),
    (mathvista, None, MULTI),
    (grounding, None, {"width": 40, "height": 30}),
    (per_class, per_class.Options(rule="class_name"), {"class": "dog", "names": ["dog", "cat"]}),
]


@settings(max_examples=examples(300))
@given(st.sampled_from(range(len(SCORERS))), ANYTHING | ANYTHING.map(json.dumps) | ANYTHING.map(repr))
def test_any_target_is_refused_withheld_or_understood_once_for_all(number: int, target: Any) -> None:
    module, options, meta = SCORERS[number]
    try:
        found = prepared(module, target, options, **meta)
    except MalformedError as error:
        assert str(error)
        return
    again: Record = module.prepare(found, options or module.Options())
    assert again.target == found.target
    if found.target is not None and module is not graded:
        said = module.own_reply(found, options or module.Options())
        value = module.score(found, said, options or module.Options()).value
        assert value is not None and 0.0 <= value <= 1.0
