"""Who answers what: distinct questions, their division over processes by cost, and batches. No I/O here.

A benchmark may ask the same thing twice (POPE's 9,000 records are 5,127 distinct pairs of image and question): a
question is answered once, and its answer counts for every record that asks it. Work is divided by image, so that a
process segments and encodes an image for all of its questions; nothing is padded and nothing is dropped. The division
is where a run starts from: a process that has finished takes over what others have left (`WorkQueue`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeAlias

from datasets.types import ImageSource, Record

QuestionKey: TypeAlias = tuple[str | None, str]
"""What makes two questions the same: the image's name (None for a text-only question) and the resolved prompt."""


IMAGE_COST = 8
"""Questions that take as long as segmenting and encoding an image: what a question about a new image costs more."""
CHUNKS = 16
"""Chunks that a process's share is cut into, about: what one process can take over from another is a whole chunk."""
_LEAST_PIECE = 4 * IMAGE_COST
"""Questions about an image that a chunk has at least, where there are so many: each further chunk encodes it again."""


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


def cost(questions: Iterable[Question]) -> int:
    """How long questions take that are answered one after the other, in questions; each image counts once."""
    number, images = 0, set()
    for question in questions:
        number += 1
        if question.image is not None:
            images.add(question.image.name)
    return number + IMAGE_COST * len(images)


def divide(questions: Sequence[Question], world: int) -> list[list[Question]]:
    """Divide questions over processes, by image and as evenly in cost as that allows.

    The most expensive groups go first, each to the process that has least. An image is split over processes only where
    it alone costs more than a fair share, into pieces of at least `IMAGE_COST` questions. The result depends on nothing
    but the arguments.

    Args:
        questions: what is to be answered, in data order.
        world: number of processes.
    Returns: one list per process, in data order, questions about an image next to each other.
    """
    total = cost(questions)
    groups = [piece for group in _by_image(questions) for piece in _split(group, total, world)]
    costs = [cost(group) for group in groups]
    loads = [0] * world
    dealt: list[list[int]] = [[] for _ in range(world)]
    for index in sorted(range(len(groups)), key=lambda i: -costs[i]):
        rank = loads.index(min(loads))
        loads[rank] += costs[index]
        dealt[rank].append(index)
    return [[question for index in sorted(indices) for question in groups[index]] for indices in dealt]


def _split(group: list[Question], total: int, world: int) -> Iterator[list[Question]]:
    """Cut the questions of an image into the fewest pieces that each cost no more than a fair share of all."""
    pieces, most = 1, min(world, max(1, len(group) // IMAGE_COST))
    while pieces < most and cost(group[: -(-len(group) // pieces)]) * world > total + IMAGE_COST * (pieces - 1):
        pieces += 1
    size = -(-len(group) // pieces)
    return batches(group, size, size)


def chunks(share: Sequence[Question]) -> list[list[Question]]:
    """Cut a process's share into parts of about the same cost, in order; each is answered by one process.

    A chunk ends between two images, or within one that has so many questions that encoding it twice hardly matters.

    Args:
        share: of one process, see `divide`.
    """
    target = -(-cost(share) // CHUNKS)
    found: list[list[Question]] = []
    open_cost, size = target, max(target, _LEAST_PIECE)
    for group in _by_image(share):
        for piece in batches(group, size, size):
            if open_cost >= target:
                found.append([])
                open_cost = 0
            found[-1] += piece
            open_cost += cost(piece)
    return found


def _by_image(questions: Sequence[Question]) -> list[list[Question]]:
    """Questions of one image together, in the order of the first; text-only questions each alone."""
    groups: dict[object, list[Question]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(index if question.image is None else question.image.name, []).append(question)
    return list(groups.values())


def batches(questions: Iterable[Question], first: int, most: int) -> Iterator[list[Question]]:
    """Cut questions into batches, drawing no more of them than the next one needs; the last may be smaller.

    Each is twice as large as the one before.

    Args:
        questions: of the process.
        first: size of the first batch, where ``most`` allows it.
        most: no batch is larger.
    """
    rest, size = iter(questions), min(first, most)
    while batch := list(islice(rest, size)):
        yield batch
        size = min(most, 2 * size)


class Claims(Protocol):
    """Who answers which chunk, as all processes see it, see ``pipeline/run/claims.py``."""

    def claim(self, name: str) -> bool:
        """Claim a chunk; False where another process has it."""

    def taken(self) -> Set[str]:
        """Chunks that have been claimed, as far as can be seen."""


class WorkQueue:
    """The questions that one process answers: its own share, then what it can take over from others.

    Args:
        shares: of all processes, see `divide`.
        rank: of this one.
        members: processes that share its folder, this one included.
        claims: of these processes; not needed where it is the only member.
        changed: called with the number of questions that this process answers, as far as can be known, whenever that
            changes.
    """

    def __init__(
        self,
        shares: Sequence[Sequence[Question]],
        rank: int,
        members: Sequence[int],
        claims: Claims | None,
        changed: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._rank, self._claims, self._changed = rank, claims, changed
        self._chunks = {member: chunks(shares[member]) for member in members}
        self._gone: set[str] = set()
        self._expected = len(shares[rank])

    def __iter__(self) -> Iterator[Question]:
        """Hand out questions; a chunk is claimed when its first question is asked for."""
        for index, chunk in enumerate(self._chunks[self._rank]):
            if self._claim(self._rank, index):
                yield from chunk
            else:
                self._expect(-len(chunk))
        while (found := self._last_left()) is not None:
            rank, index = found
            if self._claim(rank, index):
                self._expect(len(self._chunks[rank][index]))
                yield from self._chunks[rank][index]

    def _claim(self, rank: int, index: int) -> bool:
        name = _name(rank, index)
        self._gone.add(name)
        return self._claims is None or self._claims.claim(name)

    def _last_left(self) -> tuple[int, int] | None:
        """The last chunk of the process that has most left; None where nothing is left."""
        if self._claims is None:
            return None
        self._gone |= self._claims.taken()
        left = {
            rank: [index for index in range(len(own)) if _name(rank, index) not in self._gone]
            for rank, own in self._chunks.items()
        }
        rank = max(left, key=lambda r: sum(cost(self._chunks[r][index]) for index in left[r]))
        return (rank, left[rank][-1]) if left[rank] else None

    def _expect(self, more: int) -> None:
        self._expected += more
        self._changed(self._expected)


def _name(rank: int, index: int) -> str:
    return f"{rank}-{index}"
