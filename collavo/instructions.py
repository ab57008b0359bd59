"""Questions about an image's objects with their answers, made from the objects that the crayon prompt shows.

Source: CoLLaVO (arXiv 2402.11248), crayon instructions (names with numbering; with boxes too; boxes of a class) and
the object-level questions that Image-CIT trains (class to yes or no, box to class). The released code has none of them;
the wordings are ours, but for the first of ``class_binary`` and ``box_class``, which are those of the paper's probes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from .crayon import CrayonObject, format_box, names_only, object_list

Box = tuple[float, float, float, float]
Kind = Literal["names", "names_boxes", "class_boxes", "class_binary", "box_class", "box_numbered"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CRAYON_KINDS: tuple[Kind, ...] = ("names", "names_boxes", "class_boxes")
"""Step 1 trains with these."""

OBJECT_KINDS: tuple[Kind, ...] = ("class_binary", "box_class", "box_numbered")
"""Image-CIT of step 2 adds these: is the class there, which class is in the box, which one of its class is it."""

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""Stands behind questions that one word answers, as in the evaluation of the probes and in LLaVA's data."""

_SHORT_ANSWER_KINDS = ("class_binary", "box_class")
SURE = "Sure, it is "
NOTHING = "There is none of the known objects in this image."
ABSENT = "There is no {name} in this image."
QUESTIONS: dict[Kind, tuple[str, ...]] = {
    "names": (
        "Name every object in this image, each with its number.",
        "Which objects are in this image? Answer with numbered names.",
        "What can be found in this image? Count up the objects of each kind.",
        "Go through this image and list its objects by number and name.",
    ),
    "names_boxes": (
        "Name every object in this image, each with its number and bounding box.",
        "Which objects are in this image, and where? Answer with numbered names and bounding boxes.",
        "List all objects of this image by number and name, and give the box around each.",
        "Find everything in this image: number, name and bounding box.",
    ),
    "class_boxes": (
        "Give the bounding box of every {name} in this image.",
        "Where is each {name} in this image? Answer with numbers and bounding boxes.",
        "Find all that is {name} in this image, and give the box around each.",
        "Which bounding boxes hold a {name}?",
    ),
    "class_binary": (
        "Is there any {name} in this image?",
        "Does this image show any {name}?",
        "Can any {name} be seen here?",
    ),
    "box_class": (
        "Which object is in the specified bounding box {box}?",
        "What is in the box {box}?",
        "Name the object that the bounding box {box} holds.",
    ),
    "box_numbered": (
        "Which object is in the specified bounding box {box}? Answer with its number and name.",
        "What is in the box {box}, and which one of its kind is it?",
        "Give number and name of the object that the bounding box {box} holds.",
    ),
}


Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """A question about an image's objects.

    Attributes:
        question: without template and object list.
        answer: the reply to be learned, without the end tag.
    """

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class AskedClasses:
    """Which classes are asked about, and how often one that is not there.

    Attributes:
        names: classes to ask about; objects of others appear in lists, but no question is about them.
        unsure: classes never said to be absent: the image has them, but too small for the map.
        absent: share of questions on the boxes of a class that name an absent one.
        absent_binary: the same for yes or no questions.
    """

    names: tuple[str, ...]
    unsure: frozenset[str] = frozenset()
    absent: float = 0.1
    absent_binary: float = 0.5

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: there is no class, or a share is outside 0..1.
        """
        if not self.names or not 0 <= self.absent <= 1 or not 0 <= self.absent_binary <= 1:
            raise ValueError(f"need classes and shares between 0 and 1, not {self}")


def possible_kinds(objects: Sequence[CrayonObject], kinds: Sequence[Kind], classes: AskedClasses) -> list[Kind]:
    """Those of the kinds that can be asked about an image, in the same order.

    Lists can always be asked for (of an empty image the answer is that there is nothing), a class wherever one is
    surely there or surely not, a box where one belongs to one object alone.
    """
    asked = bool(_present(objects, classes) or _absent(objects, classes))
    boxed = bool(_with_own_box(objects, classes))
    possible = {"class_boxes": asked, "class_binary": asked, "box_class": boxed, "box_numbered": boxed}
    return [kind for kind in kinds if possible.get(kind, True)]


def make_instruction(
    kind: Kind, objects: Sequence[CrayonObject], classes: AskedClasses, rng: np.random.Generator
) -> Instruction:
    """Make one question with its answer.

    Args:
        kind: what is asked; must be possible (see `possible_kinds`).
        objects: of the map that the crayon prompt is made from, in its order.
        classes: what questions are about.
        rng: chooses the question's words, its class or its object; the same state gives the same turn.

    Raises:
        ValueError: the image does not allow this kind.
    """
    question = _choice(QUESTIONS[kind], rng) + (SHORT_ANSWER if kind in _SHORT_ANSWER_KINDS else "")
    if kind == "names":
        return Instruction(question=question, answer=SURE + names_only(objects) if objects else NOTHING)
    if kind == "names_boxes":
        return Instruction(question=question, answer=SURE + object_list(objects) if objects else NOTHING)
    if kind in ("class_boxes", "class_binary"):
        binary = kind == "class_binary"
        name = _drawn_class(objects, classes, classes.absent_binary if binary else classes.absent, rng)
        found = [item for item in objects if item.category == name]
        there = "Yes" if binary else SURE + object_list(found)
        return Instruction(
            question=question.format(name=name),
            answer=there if found else "No" if binary else ABSENT.format(name=name),
        )
    own = _with_own_box(objects, classes)
    if not own:
        raise ValueError(f"no box of this image belongs to one object alone, {kind} cannot be asked")
    item = _choice(own, rng)
    answer = item.category if kind == "box_class" else names_only([item])
    return Instruction(question=question.format(box=format_box(item.box)), answer=answer)


def _choice(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


def _present(objects: Sequence[CrayonObject], classes: AskedClasses) -> list[str]:
    there = {item.category for item in objects}
    return [name for name in classes.names if name in there]


def _absent(objects: Sequence[CrayonObject], classes: AskedClasses) -> list[str]:
    there = {item.category for item in objects} | classes.unsure
    return [name for name in classes.names if name not in there]


def _drawn_class(
    objects: Sequence[CrayonObject], classes: AskedClasses, absent: float, rng: np.random.Generator
) -> str:
    """A class to ask about: an absent one as often as wanted, as far as there are both.

    Raises:
        ValueError: no class is surely there or surely not.
    """
    present, missing = _present(objects, classes), _absent(objects, classes)
    names = missing if not present or (missing and rng.random() < absent) else present
    if not names:
        raise ValueError("no class is surely in this image or surely not, none can be asked for")
    return _choice(names, rng)


def _with_own_box(objects: Sequence[CrayonObject], classes: AskedClasses) -> list[CrayonObject]:
    """Objects to ask about whose box, as it is written, is no other object's."""
    boxes = Counter(format_box(item.box) for item in objects)
    return [item for item in objects if item.category in classes.names and boxes[format_box(item.box)] == 1]
