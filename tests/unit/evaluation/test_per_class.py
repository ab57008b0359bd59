"""Figures by class, and class names in texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.per_class import PerClassScorer, read_class
from datasets.types import DataError, Record, Scored
from modeling.segmenters.coco import COCO_PANOPTIC

NAMES = tuple(category.name for category in COCO_PANOPTIC if category.is_thing)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dog", "dog"),
        ("A dog.", "dog"),
        ("Sure, it is (#2 dog) [0.1, 0.2, 0.3, 0.4]", "dog"),
        ("The object is a traffic light.", "traffic light"),
        ("Two DOGS and a dog", "dog"),
        ("hot-dog", "hot dog"),
        ("hot dog", "hot dog"),
        ("hotdog", "hot dog"),
        ("knives", "knife"),
        ("people", "person"),
        ("mice", "mouse"),
        ("skis", "skis"),
        ("dining table", "dining table"),
        ("a dog and a cat", ""),
        ("dogma", ""),
        ("", ""),
    ],
)
def test_class_names(text: str, name: str) -> None:
    assert read_class(text, NAMES) == name


@given(st.sampled_from(NAMES), st.sampled_from(["{}", "{}.", "a {}", "It is the {}!", "{}s"]))
def test_every_class_is_read_from_its_own_name(name: str, form: str) -> None:
    assert read_class(form.format(name), NAMES) == name


def record(number: int, name: str, target: str) -> Record:
    return Record(id=str(number), image=None, fields={}, target=target, meta={"class": name, "names": NAMES})


@given(st.lists(st.tuples(st.sampled_from(NAMES[:9]), st.booleans()), min_size=1, max_size=60), st.integers(1, 5))
def test_averages_over_classes(answers: list[tuple[str, bool]], extremes: int) -> None:
    options = PerClassScorer(rule="class_name", extremes=extremes)
    scored = []
    for number, (name, right) in enumerate(answers):
        item, text = record(number, name, name), name if right else "nothing"
        scored.append(Scored(record=item, text=text, score=options.score(item, text)))
    rows = {f"{m.group}/{m.name}".removeprefix("/"): m for m in options.summarize(scored)}
    by_class = {n: np.mean([right for name, right in answers if name == n]) for n in {name for name, _ in answers}}
    ranked = sorted(by_class.values(), reverse=True)
    assert rows["average"].value == pytest.approx(np.mean(ranked))
    assert rows[f"top_{extremes}"].value == pytest.approx(np.mean(ranked[:extremes]))
    assert rows[f"bottom_{extremes}"].value == pytest.approx(np.mean(ranked[-extremes:]))
    assert rows["accuracy"].value == pytest.approx(np.mean([right for _, right in answers]))
    assert {n: rows[f"class/{n}/accuracy"].value for n in by_class} == pytest.approx(by_class)
    assert rows["average"].num == len(answers)


def test_yes_no_reads_as_pope_does() -> None:
    options = PerClassScorer(rule="yes_no")
    assert options.score(record(1, "dog", "no"), "No, there is none").value == 1.0
    assert options.score(record(1, "dog", "yes"), "").no_answer


def test_mistakes_in_declarations() -> None:
    with pytest.raises(DataError, match="extremes must be at least 1"):
        PerClassScorer(rule="yes_no", extremes=0)
    bare = Record(id="1", image=None, fields={}, target="dog")
    with pytest.raises(DataError, match="has no class names"):
        PerClassScorer(rule="class_name").score(bare, "dog")
