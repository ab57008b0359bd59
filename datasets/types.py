"""What passes between a benchmark's files, the loop and the scorers.

A reader (``datasets/registration``) turns release files into `Record`s, whose images are bytes, and
their declaration words the prompts; a scorer (``datasets/evaluation``) turns a record and the model's text into a
`Score`, and all scores of a benchmark into `Metric` rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from configs.common.escape import terminal_lines
from configs.common.words import shown

LONGEST_PLACE, LONGEST_REASON = 500, 1000
"""Characters of what is said about a bad record."""


class DataError(Exception):
    """A mistake in the user's data: the message names file, line or key, and says what to do.

    Args:
        message: may hold parts of the data; control characters in it become visible, and overlong lines are cut.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(terminal_lines(str(message)))


@runtime_checkable
class ImageSource(Protocol):
    """Where the encoded bytes of one image come from; reading is delayed until the image is needed."""

    @property
    def name(self) -> str:
        """Stable name of the image in its benchmark: equal names mean the same image (file name, row key)."""

    def read(self) -> bytes:
        """Encoded image bytes (JPEG, PNG, ...).

        Raises:
            OSError: the file is missing or unreadable; the message names the path.
        """


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own.

    Attributes:
        path: the file.
        name: stable name in the benchmark, normally the path relative to the image folder.
    """

    path: Path
    name: str

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class ImageGroup:
    """Several images of one record, in order; for models that take them.

    Attributes:
        sources: at least two.
    """

    sources: tuple[ImageSource, ...]

    @property
    def name(self) -> str:
        """Names of the images, joined."""
        return " + ".join(source.name for source in self.sources)

    def read(self) -> bytes:
        """Refuse: what takes one image cannot take several.

        Raises:
            DataError: always.
        """
        raise DataError(f"image {self.name}: the record has {len(self.sources)} images, and this model takes one")


def sources_of(image: ImageSource | None) -> tuple[ImageSource, ...]:
    """The single images of a record: none, one, or those of its group."""
    if image is None:
        return ()
    return image.sources if isinstance(image, ImageGroup) else (image,)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One question of a benchmark, as its release has it.

    Attributes:
        id: unique in the benchmark; predictions and scores are joined by it.
        image: the image, or None for a text-only question; several are one `ImageGroup`.
        fields: what the prompt template may name: ``question``, ``hint``, ``options``, ...
        target: what the scorer compares with: a label, a list of answers, a letter; None where it is withheld.
        group: the split or category that scores are reported by; "" if there is one group only.
        meta: anything else the scorer needs, with the release's own names; ``absent`` says which file would give a
            field that the record lacks.
        where: its place, file and line or file and key, for messages; "" where the reader does not say.
    """

    id: str
    image: ImageSource | None
    fields: Mapping[str, str]
    target: Any
    group: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that could not be read: reported and counted, never silently dropped.

    Attributes:
        where: file and line, or file and key.
        reason: what is wrong and what was expected.
    """

    where: str
    reason: str

    def __post_init__(self) -> None:
        """Make both fit for a line of a message, whatever the data held."""
        object.__setattr__(self, "where", shown(self.where, LONGEST_PLACE))
        object.__setattr__(self, "reason", shown(self.reason, LONGEST_REASON))


@dataclass(frozen=True, kw_only=True)
class Score:
    """The verdict on one answer.

    Attributes:
        value: credit between 0 and 1; None if the answer could not be judged (it is then left out and counted).
        extracted: what was understood from the model's text, e.g. ``yes`` or ``B``; "" if nothing was.
        no_answer: the text holds no recognisable answer (whatever value the official rule then gives).
        explanation: one line for the reader of the per-sample file; "" if nothing needs saying.
    """

    value: float | None
    extracted: str
    no_answer: bool = False
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A record with the model's text and its verdict: what the aggregation of a scorer receives."""

    record: Record
    text: str
    score: Score


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One reported figure.

    Attributes:
        name: e.g. ``accuracy``, ``f1``, ``TP``; the official name where there is one.
        group: what it is computed over: a split, a category; "" for the whole benchmark, ``mean`` for a mean of groups.
        value: the figure; None where the official rule cannot produce one (a division by zero).
        num: how many samples it is computed from.
        stderr: standard error of a rate over samples; None where it has no simple form.
        low: lower end of its 95 % interval, within the scale of the figure; None where there is none.
        high: upper end.
        kind: ``rate`` is a fraction of 1, ``count`` an integer, ``score`` any other scale.
    """

    name: str
    value: float | int | None
    num: int
    group: str = ""
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    kind: Literal["rate", "count", "score"] = "rate"


@dataclass(frozen=True, kw_only=True)
class UnansweredScore(Score):
    """The score of a record without a reply (an unreadable image, no prediction in a file).

    Such a record is kept: some official rules count it as wrong, others leave it out, and the scorers know which.
    """

    value: None = None
    extracted: str = ""
    explanation: str = "no prediction"


def unanswered(record: Record) -> Scored:
    """What the aggregation of a scorer receives for a record without an answer."""
    return Scored(record=record, text="", score=UnansweredScore())
