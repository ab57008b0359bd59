"""Who answers what: distinct questions, their division over processes, and batches. Pure functions.

A benchmark may ask the same thing twice (POPE's 9,000 records are 5,127 distinct pairs of image and question): a
question is answered once, and its answer counts for every record that asks it. Work is divided by image, so that a
process segments and encodes an image for all of its questions; nothing is padded and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from datasets.types import ImageSource, Record

QuestionKey: TypeAlias = tuple[str | None, str]
"""What makes two questions the same: the image's name (None for a text-only question) and the resolved prompt."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A distinct question.

    Attributes:
        image: the image; None for a text-only question.
        prompt: the benchmark's prompt, resolved.
        ids: of the records that ask it, in data order.
    """

    image: ImageSource | None
    prompt: str
    ids: tuple[str, ...]

    @property
    def key(self) -> QuestionKey:
        """What the question is recognised by."""
        return (None if self.image is None else self.image.name, self.prompt)


def distinct_questions(asked: Iterable[tuple[Record, str]]) -> list[Question]:
    """Group records that ask the same of the same image.

    Args:
        asked: records and their resolved prompts, in data order.
    Returns: the questions, in the order of their first record.
    """
    groups: dict[QuestionKey, list[Record]] = {}
    for record, prompt in asked:
        groups.setdefault((None if record.image is None else record.image.name, prompt), []).append(record)
    return [
        Question(image=records[0].image, prompt=prompt, ids=tuple(record.id for record in records))
        for (_, prompt), records in groups.items()
    ]


def divide(questions: Sequence[Question], world: int) -> list[list[Question]]:
    """Divide questions over processes, by image and as evenly as that allows.

    The largest groups go first, each to the process that has least; an image with more questions than one process
    should have is the only one that is split. The result depends on nothing but the arguments.

    Args:
        questions: what is to be answered, in data order.
        world: number of processes.
    Returns: one list per process, in data order, questions about an image next to each other.
    """
    share = max(1, -(-len(questions) // world))
    groups: list[list[Question]] = []
    for group in _by_image(questions):
        groups += [group[start : start + share] for start in range(0, len(group), share)]
    loads = [0] * world
    dealt: list[list[int]] = [[] for _ in range(world)]
    for index in sorted(range(len(groups)), key=lambda i: -len(groups[i])):
        rank = loads.index(min(loads))
        loads[rank] += len(groups[index])
        dealt[rank].append(index)
    return [[question for index in sorted(indices) for question in groups[index]] for indices in dealt]


def _by_image(questions: Sequence[Question]) -> list[list[Question]]:
    """Questions of one image together, in the order of the first; text-only questions each alone."""
    groups: dict[object, list[Question]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(index if question.image is None else question.image.name, []).append(question)
    return list(groups.values())


def batch_size_per_process(total: int, world: int) -> int:
    """Questions that one process answers at a time, at least 1; rounded up where the processes do not divide it."""
    return max(1, -(-total // world))


def batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Cut a process's questions into batches; the last one may be smaller."""
    for start in range(0, len(questions), size):
        yield list(questions[start : start + size])
