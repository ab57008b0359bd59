"""Scorers: replies into scores and metrics. A declaration names one of `registry.SCORERS`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..declaration import Benchmark
from ..types import Metric, Record, Score
from .base import BenchmarkScorer as BenchmarkScorer
from .base import Evaluation as Evaluation
from .base import Judging as Judging
from .registry import scorer_of


def benchmark_scorer(benchmark: Benchmark) -> BenchmarkScorer:
    """The scorer that a benchmark names, looked up once for all its replies.

    Raises:
        DataError: unknown scorer or option.
    """
    return BenchmarkScorer(benchmark, scorer_of(benchmark))


def evaluate(benchmark: Benchmark, answers: Iterable[tuple[Record, str | None]]) -> Evaluation:
    """Score a benchmark by its rules alone, see `BenchmarkScorer.evaluate`.

    Raises:
        DataError: unknown scorer or option, or a record that is answered twice.
    """
    return benchmark_scorer(benchmark).evaluate(answers)


def counted_as_wrong(benchmark: Benchmark, evaluation: Evaluation, ids: Collection[str]) -> list[Metric]:
    """The figures where some records without a reply count as wrong, rather than being left out.

    Args:
        benchmark: names the scorer.
        evaluation: of all records.
        ids: of the records that count as wrong.

    Raises:
        DataError: unknown scorer or option.
    """
    scorer = benchmark_scorer(benchmark)
    scored = [
        replace(one, score=_wrong(scorer, one.record)) if one.record.id in ids else one for one in evaluation.scored
    ]
    return scorer.rule.summarize(scored)


_REPLIES = ("", "no", "yes")
"""One of them is wrong by any rule; some rules read an answer where nothing is said."""


def _wrong(scorer: BenchmarkScorer, record: Record) -> Score:
    """The verdict on a wrong reply to a record."""
    verdicts = [scorer.score(record, text) for text in _REPLIES]
    verdict = next((verdict for verdict in verdicts if verdict.value == 0), verdicts[0])
    return replace(verdict, value=None if record.target is None else 0.0, no_answer=True)


def unit_of(benchmark: Benchmark) -> Callable[[Record], str]:
    """What a benchmark's scorer takes together: from a record to the name of its unit; see `base.Scorer.unit`.

    Raises:
        DataError: unknown scorer or option.
    """
    return scorer_of(benchmark).unit


def groups_of(benchmark: Benchmark) -> Callable[[Record], tuple[str, ...]]:
    """What a benchmark's records are reported under, coarse to fine.

    That is their group, then what ``meta`` has under the names of `base.Scorer.grouped_by`.

    Raises:
        DataError: unknown scorer or option.
    """
    keys = scorer_of(benchmark).grouped_by()
    return lambda record: (record.group, *(_named(record.meta, key) for key in keys))


def _named(meta: Mapping[str, Any], key: str) -> str:
    """A value in ``meta`` as the name of a group; several at once are one group."""
    value = meta.get(key)
    if value is None:
        return ""
    return "+".join(sorted(map(str, value))) if isinstance(value, (list, tuple)) else str(value)
