"""Crayon instructions: answers checked by reading them back, wordings, absent classes, images without objects."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collavo.crayon import Box, CrayonObject, format_box
from collavo.instructions import (
    ABSENT,
    CRAYON_KINDS,
    KINDS,
    NOTHING,
    OBJECT_KINDS,
    QUESTIONS,
    SHORT_ANSWER,
    SURE,
    AskedClasses,
    Kind,
    make_instruction,
    possible_kinds,
)

NAMES = ("horse", "person", "sky", "potted plant", "dog")


def thing(category: str, number: int, box: Box) -> CrayonObject:
    return CrayonObject(segment_id=1, category=category, number=number, box=box)


CLASSES = AskedClasses(names=NAMES)
HORSES = (
    thing("horse", 1, (0.06, 0.38, 0.27, 0.91)),
    thing("horse", 2, (0.3, 0.4, 0.6, 1.0)),
    thing("sky", 1, (0.0, 0.0, 1.0, 0.3)),
)


@st.composite
def images(draw: st.DrawFn) -> list[CrayonObject]:
    counts: dict[str, int] = {}
    things = []
    for name in draw(st.lists(st.sampled_from([*NAMES, "rug"]), max_size=8)):
        counts[name] = counts.get(name, 0) + 1
        side = st.sampled_from([0.0, 0.25, 0.5, 1.0])
        things.append(thing(name, counts[name], (draw(side), draw(side), draw(side), draw(side))))
    return things


def ask(kind: Kind, things: Sequence[CrayonObject], seed: int = 0, classes: AskedClasses = CLASSES) -> tuple[str, str]:
    turn = make_instruction(kind, things, classes, np.random.default_rng(seed))
    assert turn.question.endswith(SHORT_ANSWER) == (kind in ("class_binary", "box_class"))
    return turn.question.removesuffix(SHORT_ANSWER), turn.answer


def asked_about(question: str, kind: Kind) -> str:
    """The class or box that a question was filled with."""
    for wording in QUESTIONS[kind]:
        pattern = re.escape(wording).replace(r"\{name\}", "(.+)").replace(r"\{box\}", "(.+)")
        found = re.fullmatch(pattern, question)
        if found:
            return found.group(1) if found.groups() else ""
    raise AssertionError(question)


def test_answers_have_the_papers_form() -> None:
    both = "(#1 horse) [0.06, 0.38, 0.27, 0.91], (#2 horse) [0.30, 0.40, 0.60, 1.00]"
    assert ask("names", HORSES)[1] == "Sure, it is #1 horse, #2 horse, #1 sky"
    assert ask("names_boxes", HORSES)[1] == f"Sure, it is {both}, (#1 sky) [0.00, 0.00, 1.00, 0.30]"
    horse = AskedClasses(names=("horse",))
    assert ask("class_boxes", HORSES, classes=horse)[1] == f"Sure, it is {both}"
    assert ask("class_binary", HORSES, classes=horse)[1] == "Yes"
    sky = AskedClasses(names=("sky",))
    assert ask("box_class", HORSES, classes=sky)[1] == "sky"
    assert ask("box_numbered", HORSES[:2], classes=horse)[1] in ("#1 horse", "#2 horse")


def test_the_probes_own_questions_are_among_the_wordings() -> None:
    assert "Is there any {name} in this image?" in QUESTIONS["class_binary"]
    assert "Which object is in the specified bounding box {box}?" in QUESTIONS["box_class"]
    assert set(CRAYON_KINDS) | set(OBJECT_KINDS) == set(KINDS) == set(QUESTIONS)
    wordings = [wording for kind in KINDS for wording in QUESTIONS[kind]]
    assert len(set(wordings)) == len(wordings)
    assert min(len(QUESTIONS[kind]) for kind in KINDS) >= 3


@given(images(), st.integers(0, 2**32))
def test_what_is_answered_is_in_the_image(things: list[CrayonObject], seed: int) -> None:
    for kind in possible_kinds(things, KINDS, CLASSES):
        question, answer = ask(kind, things, seed)
        about, there = asked_about(question, kind), [thing for thing in things]
        if kind in ("names", "names_boxes"):
            listed = re.findall(r"#(\d+) ([^,)]+)", answer)
            assert listed == [(str(thing.number), thing.category) for thing in there]
            assert (answer == NOTHING) == (not things)
        elif kind == "class_boxes":
            found = re.findall(r"\(#(\d+) ([^)]+)\) (\[.*?\])", answer)
            wanted = [(str(t.number), t.category, format_box(t.box)) for t in there if t.category == about]
            assert found == wanted
            assert answer.startswith(SURE) if wanted else answer == ABSENT.format(name=about)
        elif kind == "class_binary":
            assert answer == ("Yes" if about in {thing.category for thing in there} else "No")
        else:
            (thing,) = [thing for thing in there if format_box(thing.box) == about]
            assert answer == (thing.category if kind == "box_class" else f"#{thing.number} {thing.category}")
            assert thing.category in NAMES


@given(images())
def test_kinds_that_are_not_possible_are_refused(things: list[CrayonObject]) -> None:
    possible = possible_kinds(things, KINDS, CLASSES)
    assert [kind for kind in KINDS if kind in possible] == possible
    assert set(possible) >= {*CRAYON_KINDS, "class_binary"}
    for kind in set(KINDS) - set(possible):
        with pytest.raises(ValueError, match="no box of this image belongs to one object alone"):
            ask(kind, things)


@given(images(), st.sampled_from(KINDS), st.integers(0, 2**32))
def test_the_same_state_asks_the_same(things: list[CrayonObject], kind: Kind, seed: int) -> None:
    if kind in possible_kinds(things, KINDS, CLASSES):
        assert ask(kind, things, seed) == ask(kind, things, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_wording_is_used(kind: Kind) -> None:
    asked = {ask(kind, HORSES, seed, AskedClasses(names=("horse",)))[0] for seed in range(200)}
    boxes = {format_box(thing.box) for thing in HORSES[:2]}
    wanted = {w.format(name="horse", box=box) for w in QUESTIONS[kind] for box in boxes}
    assert asked == wanted


def test_absent_classes_come_at_their_shares() -> None:
    answers = [ask("class_binary", HORSES, seed)[1] for seed in range(2000)]
    assert abs(answers.count("No") / 2000 - 0.5) < 0.04
    answers = [ask("class_boxes", HORSES, seed)[1] for seed in range(2000)]
    assert abs(sum(answer.startswith("There is no") for answer in answers) / 2000 - 0.1) < 0.03
    never = AskedClasses(names=NAMES, absent=0, absent_binary=0)
    assert {ask("class_binary", HORSES, seed, never)[1] for seed in range(50)} == {"Yes"}


def test_classes_lost_on_the_map_are_never_called_absent() -> None:
    classes = AskedClasses(names=NAMES, unsure=frozenset({"dog", "person"}), absent=1, absent_binary=1)
    for kind in ("class_binary", "class_boxes"):
        names = {asked_about(ask(kind, HORSES, seed, classes)[0], kind) for seed in range(100)}
        assert names == {"potted plant"}
    lost = AskedClasses(names=("dog",), unsure=frozenset({"dog"}))
    assert possible_kinds(HORSES, KINDS, lost) == ["names", "names_boxes"]
    with pytest.raises(ValueError, match="no class is surely in this image"):
        ask("class_binary", HORSES, 0, lost)


def test_an_empty_image_is_asked_about_too() -> None:
    assert possible_kinds((), KINDS, CLASSES) == [*CRAYON_KINDS, "class_binary"]
    assert ask("names", ())[1] == ask("names_boxes", ())[1] == NOTHING
    assert ask("class_binary", ())[1] == "No"
    assert ask("class_boxes", ())[1].startswith("There is no ")


def test_a_box_of_two_objects_is_not_asked_about() -> None:
    twins = [thing("dog", 1, (0, 0, 0.5, 0.5)), thing("sky", 1, (0, 0, 0.5, 0.504)), thing("horse", 1, (0, 0, 1, 1))]
    assert {ask("box_class", twins, seed)[1] for seed in range(50)} == {"horse"}
    assert "box_class" not in possible_kinds(twins[:2], KINDS, CLASSES)


@pytest.mark.parametrize("change", [{"names": ()}, {"absent": 1.1}, {"absent_binary": -0.1}])
def test_impossible_classes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="need classes and shares between 0 and 1"):
        AskedClasses(**{"names": NAMES, **change})  # type: ignore[arg-type]
