"""What a scorer is: the rule that turns a benchmark's replies into scores, and scores into metrics.

A scorer is a frozen dataclass whose fields are the options that a declaration may set (``scorer: {...}``). `Scorer` has
defaults for all but `Scorer.score` and `Scorer.summarize`; a scorer that a judge helps is a `JudgedScorer`. The names
that declarations use stand in `registry.SCORERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from configs.common.words import shown

from ..declaration import Benchmark
from ..types import DataError, Metric, Record, Score, Scored, unanswered
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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of scoring a benchmark.

    Attributes:
        scored: one verdict per answer, in the order given.
        metrics: the figures.
    """

    scored: list[Scored]
    metrics: list[Metric]


Judging: TypeAlias = Callable[[Record, str, Mapping[str, str] | None], Score]
"""Judges one reply: with a judge's verdicts on it, by part, or without (None)."""


class BenchmarkScorer:
    """A benchmark's scorer: looked up once, and used for every reply.

    Args:
        benchmark: for messages.
        rule: the scorer that it names.

    Attributes:
        judged: the rule where a judge can help with it; else None.
    """

    def __init__(self, benchmark: Benchmark, rule: Scorer) -> None:
        self.benchmark, self.rule = benchmark, rule
        helped = isinstance(self.rule, JudgedScorer) and not self.rule.unused()
        self.judged: JudgedScorer | None = self.rule if isinstance(self.rule, JudgedScorer) and helped else None

    @property
    def uses_judge(self) -> bool:
        """Whether a judge can help to score by the rule that the options name."""
        return self.judged is not None

    def with_judge(self) -> JudgedScorer:
        """The scorer as one that a judge helps.

        Raises:
            DataError: a judge has no part in the rule.
        """
        if self.judged is None:
            name, scorer = self.benchmark.name, self.benchmark.scorer
            option = f" {self.rule.unused()}" if isinstance(self.rule, JudgedScorer) else ""
            raise DataError(f"benchmark {name}: its scorer '{scorer}'{option} has no use for a judge")
        return self.judged

    def score(self, record: Record, text: str, verdicts: Mapping[str, str] | None = None) -> Score:
        """Judge one reply.

        Args:
            record: that it answers.
            text: the reply.
            verdicts: of a judge on this reply, by part; None where the rules alone decide.
        """
        return self.rule.score(record, text) if verdicts is None else self.with_judge().judged(record, text, verdicts)

    def evaluate(
        self,
        answers: Iterable[tuple[Record, str | None]],
        verdicts: Mapping[str, Mapping[str, str]] | None = None,
        score: Judging | None = None,
    ) -> Evaluation:
        """Judge all replies and sum them up; replies are already joined to their records by id.

        Args:
            answers: records with the model's text; None for a record that could not be asked.
            verdicts: of a judge, by record and part; what it was asked in vain stays unscored. None for no judge.
            score: judges one reply; `score` if None.

        Raises:
            DataError: a record is answered twice; or the scorer has no use for verdicts, or none is on a record.
        """
        if verdicts is not None:
            self.with_judge()
        score, scored = score or self.score, dict[str, Scored]()
        for record, text in answers:
            if record.id in scored:
                raise DataError(
                    f"benchmark {self.benchmark.name}: {shown(record.id)} is answered twice; each id is scored once"
                )
            said = None if verdicts is None else verdicts.get(record.id, {})
            scored[record.id] = (
                unanswered(record)
                if text is None
                else Scored(record=record, text=text, score=score(record, text, said))
            )
        if verdicts and not scored.keys() & verdicts.keys():
            raise DataError(
                f"benchmark {self.benchmark.name}: none of the {len(verdicts)} verdicts is on one of its records; "
                f"a verdict is on {next(iter(verdicts))}, a record is {next(iter(scored), 'nowhere')}"
            )
        found = list(scored.values())
        return Evaluation(scored=found, metrics=self.rule.summarize(found))
