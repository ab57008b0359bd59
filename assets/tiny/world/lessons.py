"""Questions to learn from: every kind of fact, worded as the benchmarks word it, with the answer they want.

The scenes that are learned from are others than those of the benchmarks; the ways to ask are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .facts import Fact, absent_classes, facts
from .options import LETTERS, shuffled_options
from .scenes import Scene, Shape
from .wording import ask, plural, with_article
from .yes_no import SUBTASKS

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
REFER = "Please provide the bounding box coordinate of the region this sentence describes: {}"
DESCRIBE = "Describe the image."

_OPEN = ("existence", "count", "sum", "more", "colour", "side", "height", "corner", "relation", "text", "scene")
"""Kinds that are asked without options."""

_CHOSEN = ("present", "count", "colour", "corner", "side", "relation", "beside", "nearest", "sum", "text", "scene")
"""Kinds that are asked with options."""

_MOST = 3
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """A question with its answer.

    Attributes:
        kind: kind of the fact; with ``choice/`` in front where a letter is wanted, ``judge/`` where yes or no to a
            statement; or ``refer``, ``describe``.
        question: as it is put to the model.
        answer: what it is to say.
    """

    kind: str
    question: str
    answer: str


def lessons(scene: Scene, rng: np.random.Generator) -> list[Lesson]:
    """Questions on a scene: up to three of each kind and each way to ask.

    Args:
        scene: drawn.
        rng: source of chance.
    """
    known: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts(scene, rng):
        known[fact.kind].append(fact)
    known["existence"] = list(_existence(scene, rng))
    found: list[Lesson] = []
    for kind in _OPEN:
        found += [Lesson(kind=kind, question=ask(f) + SHORT, answer=_said(f)) for f in _some(known[kind], rng)]
    for kind in _CHOSEN:
        found += [_choice(fact, rng) for fact in _some(known[kind], rng, 2)]
    found += _judged(scene, known, rng)
    found += [box_by_colour_and_name(thing, rng) for thing in _some(scene.single, rng, 1)]
    return [*found, Lesson(kind="describe", question=DESCRIBE, answer=description(scene))]


def _some(items: Sequence[T], rng: np.random.Generator, most: int = _MOST) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))[:most]]


def _said(fact: Fact) -> str:
    return fact.answer.capitalize() if fact.answer in ("yes", "no") else fact.answer


def _existence(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    """As many absent classes as present ones: half of them likely to be met there, half of them any."""
    missing = absent_classes(scene)
    for name in _some(list(scene.counts), rng, 2):
        yield Fact(kind="existence", about=(name,), answer="yes", wrong=("no",))
        likely = missing[: max(1, len(missing) // 3)] if rng.random() < 0.5 else missing
        yield Fact(kind="existence", about=(_some(likely, rng, 1)[0],), answer="no", wrong=("yes",))


def _choice(fact: Fact, rng: np.random.Generator) -> Lesson:
    """A question with two to four options, in one of the layouts that benchmarks have."""
    options, right = shuffled_options(fact, rng, int(rng.integers(2, 5)))
    between = " " if rng.random() < 0.15 else "\n"  # SEED-Bench sets them in one line
    listed = between.join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
    end = "\n" if between == "\n" and rng.random() < 0.3 else ""
    question = f"{ask(fact)}\n{listed}{end}{LETTER}"
    return Lesson(kind=f"choice/{fact.kind}", question=question, answer=LETTERS[right])


def _judged(scene: Scene, known: dict[str, list[Fact]], rng: np.random.Generator) -> Iterator[Lesson]:
    """MME's questions, as often to be answered by yes as by no."""
    for kind, word in SUBTASKS.values():
        for fact in _some(known[kind], rng, 1):
            answer = int(rng.integers(2))
            question = word(fact, scene)[answer]
            yield Lesson(kind=f"judge/{kind}", question=question + SHORT, answer=("Yes", "No")[answer])


def box_by_colour_and_name(thing: Shape, rng: np.random.Generator) -> Lesson:
    """The box of a thing that is alone of its class, by colour and name."""
    height, width = thing.pixels.shape
    left, top, right, bottom = thing.box
    sides = (left / width, top / height, right / width, bottom / height)
    article = "the " if rng.random() < 0.3 else ""
    answer = "[" + ", ".join(f"{side:.2f}" for side in sides) + "]"
    return Lesson(kind="refer", question=REFER.format(f"{article}{thing.colour} {thing.name}"), answer=answer)


def description(scene: Scene) -> str:
    """Things with their counts, on the ground that covers most."""
    things = [f"{n} {plural(name)}" if n > 1 else with_article(name) for name, n in scene.counts.items()]
    ground = max((s for s in scene.shapes if not s.is_thing), key=lambda shape: int(shape.pixels.sum()))
    return f"{' and '.join(things)} on {ground.name.split('-')[0]}"
