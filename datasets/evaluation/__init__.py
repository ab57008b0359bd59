"""Scorers: replies into scores and metrics. A declaration names one of `registry.SCORERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..declaration import Benchmark
from ..types import Record, Score
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


def score(benchmark: Benchmark, record: Record, text: str) -> Score:
    """Judge one answer by the benchmark's rule; for many, make one `benchmark_scorer`.

    Raises:
        DataError: unknown scorer or option.
    """
    return benchmark_scorer(benchmark).score(record, text)


def evaluate(benchmark: Benchmark, answers: Iterable[tuple[Record, str | None]]) -> Evaluation:
    """Score a benchmark by its rules alone, see `BenchmarkScorer.evaluate`.

    Raises:
        DataError: unknown scorer or option, or a record that is answered twice.
    """
    return benchmark_scorer(benchmark).evaluate(answers)


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
