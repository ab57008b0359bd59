"""Can a record be scored: its target is understood, its own reply gets the most that the rule gives, nothing gets less.

`prepare_records` brings targets into the form that the scorer compares with. `try_records` scores every record with its
own target and with an empty reply, as a run will; where a judge helps, with the verdict that a judge gives of its
target. `check_scoring` does so for all records and sums both up. All come before a model is asked, so that no question
is answered in vain: a record that cannot be scored is malformed, and a benchmark of which none can has no run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..declaration import Benchmark
from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import BadRecord, DataError, Record, Score
from . import Evaluation, Judging, benchmark_scorer
from .base import JudgedScorer, Scorer
from .judges.base import Request, Verdicts
from .judging import judge_requests
from .registry import scorer_of

UNREAD = "…"
"""A reply in which no rule finds an answer, so that a judge is asked about it."""
_ROUNDING = 1e-9


class UnscorableError(DataError):
    """A benchmark of which nothing can be scored; the message says why."""


@dataclass(frozen=True, kw_only=True)
class TrialScores:
    """A record's scores.

    Attributes:
        own: credit of the reply that says the target; None where the target is withheld.
        empty: credit of an empty reply; 0 where it has none.
        reply: that says the target; "" where it is withheld.
        verdicts: what a judge says of it, by part; empty where none helps.
        fault: why the record cannot be scored; "" if it can.
    """

    own: float | None = None
    empty: float = 0.0
    reply: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


def prepare_records(benchmark: Benchmark, records: Sequence[Record]) -> tuple[list[Record], list[BadRecord]]:
    """Records in the form that the benchmark's scorer needs.

    Args:
        benchmark: names the scorer and its options.
        records: as its reader made them.
    Returns: those that can be scored, in order, and why others cannot.

    Raises:
        UnscorableError: none of them can.
        DataError: unknown scorer or option.
    """
    scorer = scorer_of(benchmark)
    good: list[Record] = []
    bad: list[BadRecord] = []
    for record in records:
        try:
            good.append(scorer.prepare(record))
        except MalformedError as error:
            bad.append(BadRecord(where=place_of_record(record), reason=str(error)))
    if bad and not good:
        raise unscorable(benchmark, len(bad), bad[0])
    return good, bad


def place_of_record(record: Record) -> str:
    """Where a record stands, for messages."""
    return record.where or f"record {record.id}"


def unscorable(benchmark: Benchmark, number: int, first: BadRecord) -> UnscorableError:
    """The error of a benchmark that has no record which can be scored."""
    return UnscorableError(
        f"benchmark {benchmark.dataset} cannot be scored by '{benchmark.scorer}': none of its {number:,} records can. "
        f"The first, {first.where}: {first.reason}"
    )


def try_records(
    benchmark: Benchmark, records: Iterable[Record], *, judged: bool, score: Judging | None = None
) -> Iterator[TrialScores]:
    """Score every record with its own target and with an empty reply.

    Args:
        benchmark: names the scorer and its options.
        records: from `prepare_records`.
        judged: whether a judge has a part in the benchmark's rules.
        score: judges one reply; as the scorer does if None.

    Raises:
        DataError: unknown scorer or option.
    """
    scorer = benchmark_scorer(benchmark)
    for record in records:
        try:
            yield _try(scorer.rule, record, judged, score or scorer.score)
        except (DataError, MalformedError) as error:
            yield TrialScores(fault=str(error))
        except Exception as error:  # noqa: BLE001 - a scorer that fails on a record is what is looked for
            yield TrialScores(fault=f"the scorer '{benchmark.scorer}' fails on it: {type(error).__name__}: {error}")


def missing_figure(benchmark: Benchmark, records: Sequence[Record]) -> str:
    """Why the benchmark's main figure would have no value over these records; "" where it has one.

    Raises:
        DataError: unknown scorer or option.
    """
    return scorer_of(benchmark).gap(records)


def _try(scorer: Scorer, record: Record, judged: bool, score: Judging) -> TrialScores:
    empty = score(record, "", None).value or 0.0
    # None where the target is withheld, or the scorer does not say how it is said
    reply = None if cells.blank(record.target) else scorer.own_reply(record)
    if reply is None:
        return TrialScores(empty=empty)
    values = [score(record, reply, None).value]
    verdicts: dict[str, str] = {}
    if judged and isinstance(scorer, JudgedScorer):
        requests = [*scorer.requests([(record, reply)]), *scorer.requests([(record, UNREAD)])]
        verdicts = _verdicts(scorer, record, requests)
        values += [score(record, text, verdicts).value for text in (reply, UNREAD)] if verdicts else []
    own = max((value for value in values if value is not None), default=0.0)
    fault = _fault(scorer, record, own, empty)
    return TrialScores(own=own, empty=empty, reply=reply, verdicts=verdicts, fault=fault)


def _verdicts(scorer: JudgedScorer, record: Record, requests: Sequence[Request]) -> dict[str, str]:
    """A judge's verdicts as they are read from its replies.

    Raises:
        MalformedError: a reply that grants everything cannot be read.
    """
    found: dict[str, str] = {}
    for request in requests:
        said = scorer.own_verdict(record, request.part)
        verdict = request.parse(said)
        if verdict is None:
            raise MalformedError(f"a judge's reply {said!r} would not be understood")
        found[request.part] = verdict
    return found


def _fault(scorer: Scorer, record: Record, own: float, empty: float) -> str:
    highest = scorer.highest(record)
    if own < highest - _ROUNDING:
        return f"its own answer {record.target!r} gets {own:g} by the rule, where the most is {highest:g}"
    if own <= 0.0:
        return f"nothing that agrees with its answer {record.target!r} gets any credit by the rule"
    if empty >= own and not scorer.credits_empty(record):
        return f"an empty reply gets as much ({empty:g}) as its own answer {record.target!r}"
    return ""


class Scores(Protocol):
    """What is checked: a benchmark with the steps that score it."""

    declaration: Benchmark

    @property
    def needs_judge(self) -> bool:
        """Whether a judge has a part in its rules."""

    def score(self, record: Record, text: str, verdicts: Mapping[str, str] | None = None) -> Score:
        """Judge one reply."""

    def evaluate(self, answers: Iterable[tuple[Record, str | None]], verdicts: Verdicts | None = None) -> Evaluation:
        """Judge all replies and sum them up."""


@dataclass(frozen=True, kw_only=True)
class ScoringCheck:
    """What the check of a benchmark found.

    Attributes:
        scored: records that were scored with their own targets.
        own: their mean credit; None where every target is withheld.
        empty: mean credit of empty replies to the same records.
        judged: whether a judge's verdicts were read for it.
        bad: records that cannot be scored, by id.
    """

    scored: int
    own: float | None
    empty: float | None
    judged: bool
    bad: Mapping[str, BadRecord]

    @property
    def sentence(self) -> str:
        """The finding in one line, in percent."""
        if self.own is None or self.empty is None:
            return "scored nothing: no record has an answer to compare with; replies will be kept"
        judge = ", as a judge of them would" if self.judged else ""
        note = " (its rule finds an answer in some empty replies)" if self.empty else ""
        return (
            f"scored {self.scored:,} records with their own targets{judge}: {100 * self.own:.1f}; "
            f"empty replies: {100 * self.empty:.1f}{note}"
        )


def check_scoring(pipeline: Scores, records: Sequence[Record]) -> ScoringCheck:
    """Score all records of a benchmark with their own targets and with empty replies.

    Args:
        pipeline: of the benchmark: its own steps are what is tried.
        records: as it loaded them.

    Raises:
        UnscorableError: no record can be scored, or the figures cannot be computed.
        DataError: unknown scorer or option.
    """
    benchmark = pipeline.declaration
    judged = pipeline.needs_judge
    trials = list(zip(records, try_records(benchmark, records, judged=judged, score=pipeline.score), strict=True))
    bad = {
        record.id: BadRecord(where=place_of_record(record), reason=trial.fault)
        for record, trial in trials
        if trial.fault
    }
    good = [(record, trial) for record, trial in trials if not trial.fault]
    if bad and not good:
        raise unscorable(benchmark, len(bad), next(iter(bad.values())))
    if why := missing_figure(benchmark, [record for record, _ in good]):
        raise UnscorableError(f"benchmark {benchmark.dataset} cannot be scored by '{benchmark.scorer}': {why}")
    good = _summable(pipeline, good, judged, bad)
    own = [(trial.own, trial.empty) for _, trial in good if trial.own is not None]
    return ScoringCheck(
        scored=len(own),
        own=sum(value for value, _ in own) / len(own) if own else None,
        empty=sum(value for _, value in own) / len(own) if own else None,
        judged=judged and any(trial.verdicts for _, trial in good),
        bad=bad,
    )


def _summable(
    pipeline: Scores, good: list[tuple[Record, TrialScores]], judged: bool, bad: dict[str, BadRecord]
) -> list[tuple[Record, TrialScores]]:
    """The records that can be summed up together; where they cannot, those that fail alone become bad ones.

    Raises:
        UnscorableError: a figure fails for another reason than single records.
    """
    try:
        _sum_up(pipeline, good, judged)
    except UnscorableError:
        whole: list[tuple[Record, TrialScores]] = []
        for record, trial in good:
            try:
                _sum_up(pipeline, [(record, trial)], judged)
                whole.append((record, trial))
            except UnscorableError as error:
                bad[record.id] = BadRecord(
                    where=place_of_record(record), reason=f"its figures fail: {_named(error.__cause__)}"
                )
        if len(whole) in (0, len(good)):
            raise
        _sum_up(pipeline, whole, judged)
        return whole
    return good


def _sum_up(pipeline: Scores, good: Sequence[tuple[Record, TrialScores]], judged: bool) -> None:
    """Compute all figures from empty replies, and from own ones, by the rules and with a judge's verdicts.

    Raises:
        UnscorableError: a figure fails.
    """
    benchmark = pipeline.declaration
    replies = [(record, trial.reply) for record, trial in good]
    try:
        pipeline.evaluate((record, "") for record, _ in good)
        pipeline.evaluate(iter(replies))
        if judged:
            judge_requests(benchmark, replies)
            verdicts = {record.id: trial.verdicts for record, trial in good if trial.verdicts}
            pipeline.evaluate(iter(replies), verdicts)
    except Exception as error:  # noqa: BLE001 - a scorer that fails is what is looked for
        raise UnscorableError(
            f"benchmark {benchmark.dataset} cannot be scored by '{benchmark.scorer}': its figures fail: {_named(error)}"
        ) from error


def _named(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def keep_scorable(
    pipeline: Scores, records: Sequence[Record], bad: Sequence[BadRecord]
) -> tuple[list[Record], list[BadRecord], ScoringCheck]:
    """The records that can be scored, those that cannot among the malformed ones, and what the check found.

    Args:
        pipeline: of the benchmark.
        records: as it loaded them.
        bad: that could not be read.

    Raises:
        UnscorableError, DataError: see `check_scoring`.
    """
    check = check_scoring(pipeline, records)
    return without_ids(records, check.bad), [*bad, *check.bad.values()], check


def without_ids(records: Sequence[Record], bad: Mapping[str, BadRecord]) -> list[Record]:
    """Records but those of these ids."""
    return [record for record in records if record.id not in bad]
