"""Before anything is asked: does the scorer score every record, and all of them together, as its rule says.

Every record is scored with its own target and with an empty reply (``datasets/evaluation/scorable.py``), and both are
summed up. A record that cannot be scored is malformed, and a benchmark of which nothing can be scored has no run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets.evaluation.judging import evaluate_judged, judge_requests
from datasets.evaluation.scorable import Trial, UnscorableError, gap, place, try_records, unscorable
from datasets.types import BadRecord, Record

from ..base import BenchmarkPipeline
from ..results.judging import needs_judge


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


def check_scoring(pipeline: BenchmarkPipeline, records: Sequence[Record]) -> ScoringCheck:
    """Score all records of a benchmark with their own targets and with empty replies.

    Args:
        pipeline: of the benchmark.
        records: as it loaded them.

    Raises:
        UnscorableError: no record can be scored, or the figures cannot be computed.
        DataError: unknown scorer or option.
    """
    benchmark = pipeline.declaration
    judged = needs_judge(benchmark)
    trials = list(zip(records, try_records(benchmark, records, judged=judged), strict=True))
    bad = {record.id: BadRecord(where=place(record), reason=trial.fault) for record, trial in trials if trial.fault}
    good = [(record, trial) for record, trial in trials if not trial.fault]
    if bad and not good:
        raise unscorable(benchmark, len(bad), next(iter(bad.values())))
    if why := gap(benchmark, [record for record, _ in good]):
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
    pipeline: BenchmarkPipeline, good: list[tuple[Record, Trial]], judged: bool, bad: dict[str, BadRecord]
) -> list[tuple[Record, Trial]]:
    """The records that can be summed up together; where they cannot, those that fail alone become bad ones.

    Raises:
        UnscorableError: a figure fails for another reason than single records.
    """
    try:
        _sum_up(pipeline, good, judged)
    except UnscorableError:
        whole: list[tuple[Record, Trial]] = []
        for record, trial in good:
            try:
                _sum_up(pipeline, [(record, trial)], judged)
                whole.append((record, trial))
            except UnscorableError as error:
                bad[record.id] = BadRecord(where=place(record), reason=f"its figures fail: {_told(error.__cause__)}")
        if len(whole) in (0, len(good)):
            raise
        _sum_up(pipeline, whole, judged)
        return whole
    return good


def _sum_up(pipeline: BenchmarkPipeline, good: Sequence[tuple[Record, Trial]], judged: bool) -> None:
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
            evaluate_judged(benchmark, replies, verdicts)
    except Exception as error:  # noqa: BLE001 - a scorer that fails is what is looked for
        raise UnscorableError(
            f"benchmark {benchmark.dataset} cannot be scored by '{benchmark.scorer}': its figures fail: {_told(error)}"
        ) from error


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def scorable(
    pipeline: BenchmarkPipeline, records: Sequence[Record], bad: Sequence[BadRecord]
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
    return without(records, check.bad), [*bad, *check.bad.values()], check


def without(records: Sequence[Record], bad: Mapping[str, BadRecord]) -> list[Record]:
    """Records but those of these ids."""
    return [record for record in records if record.id not in bad]
