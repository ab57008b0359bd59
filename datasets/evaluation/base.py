"""What a scorer is: the rule that turns a benchmark's replies into scores, and scores into metrics.

A scorer is a frozen dataclass whose fields are the options that a declaration may set (``scorer: {...}``). `Scorer` has
defaults for all but `Scorer.score` and `Scorer.summarize`; a scorer that a judge helps is a `JudgedScorer`. The names
that declarations use stand in `registry.SCORERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..types import Metric, Record, Score, Scored
from .judges.base import Request


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The file that a benchmark's evaluation server takes.

    Attributes:
        file: its name.
        content: its bytes, from one entry per record in the order of the data.
    """

    file: str
    content: Callable[[Sequence[Scored]], bytes]


class Scorer(ABC):
    """A benchmark's rule. All methods are pure.

    Attributes:
        submission: what the benchmark's evaluation server takes; None where there is no server.
    """

    submission: ClassVar[Submission | None] = None

    @abstractmethod
    def score(self, record: Record, text: str) -> Score:
        """Score one reply.

        Args:
            record: from `prepare`.
            text: the reply.
        """

    @abstractmethod
    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """The metrics over all replies, the main one first.

        Args:
            scored: one entry per record, in the order of the data.
        """

    def prepare(self, record: Record) -> Record:
        """The record with its target, and what else the rule needs, in the form that `score` compares with.

        Raises:
            MalformedError: the rule cannot score such a record; see `parsing.targets`.
        """
        return record

    def own_reply(self, record: Record) -> str | None:
        """The reply that says the record's target; None where the scorer does not know how it is said."""
        return record.target if isinstance(record.target, str) else None

    def highest(self, record: Record) -> float:
        """The most that the rule gives for a reply."""
        return 1.0

    def credits_empty(self, record: Record) -> bool:
        """Whether the rule finds an answer in an empty reply."""
        return False

    def gap(self, records: Sequence[Record]) -> str:
        """Why the main metric would have no value over these records; "" where it has one."""
        return ""

    def unit(self, record: Record) -> str:
        """Name of what the rule takes together, e.g. a pair of questions; a limited run keeps it whole."""
        return record.id

    def grouped_by(self) -> tuple[str, ...]:
        """Names in a record's ``meta`` that metrics are reported by, coarse to fine."""
        return ()


class JudgedScorer(Scorer):
    """A rule that a judge helps with: what to ask it, and the score with its verdicts.

    Asking happens elsewhere (`judges.chat.ChatJudge`), or not at all: recorded verdicts serve as well.

    Attributes:
        offline: what decides where no judge is asked; "" where nothing does.
        recorded: the field under which the authors' result files keep a judge's verdict next to each reply; "" where
            they do not.
    """

    offline: ClassVar[str]
    recorded: ClassVar[str] = ""

    def unused(self) -> str:
        """The option by which a judge has nothing to decide, e.g. ``by the rule 'x'``; "" where it has."""
        return ""

    @abstractmethod
    def requests(self, answers: Iterable[tuple[Record, str]]) -> Iterable[Request]:
        """What a judge must be asked about records and the model's replies; nothing where the rule decides."""

    @abstractmethod
    def judged(self, record: Record, text: str, verdicts: Mapping[str, str]) -> Score:
        """Score one reply with a judge's verdicts.

        Args:
            record: from `prepare`.
            text: the reply.
            verdicts: on this record, by part of the request.
        """

    @abstractmethod
    def own_verdict(self, record: Record, part: str) -> str:
        """What a judge replies to a request about `own_reply`.

        Args:
            record: from `prepare`.
            part: of the request.
        """
