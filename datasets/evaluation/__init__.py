"""Scorers: replies into scores and metrics. A declaration names one of `registry.SCORERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.common.words import shown

from ..declaration import Benchmark
from ..types import DataError, Metric, Record, Score, Scored
from .predictions import unanswered
from .registry import scorer_of


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of scoring a benchmark.

    Attributes:
        scored: one verdict per answer, in the order given.
        metrics: the figures.
    """

    scored: list[Scored]
    metrics: list[Metric]


def score(benchmark: Benchmark, record: Record, text: str) -> Score:
    """Judge one answer by the benchmark's rule; for many, look the scorer up once with `registry.scorer_of`.

    Raises:
        DataError: unknown scorer or option.
    """
    return scorer_of(benchmark).score(record, text)


def evaluate(benchmark: Benchmark, answers: Iterable[tuple[Record, str | None]]) -> Evaluation:
    """Score a benchmark; answers are already joined to their records by id.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text; None for a record that could not be asked.

    Raises:
        DataError: unknown scorer or option, or a record that is answered twice.
    """
    scorer = scorer_of(benchmark)
    scored: list[Scored] = []
    seen: set[str] = set()
    for record, text in answers:
        if record.id in seen:
            raise DataError(f"benchmark {benchmark.name}: {shown(record.id)} is answered twice; each id is scored once")
        seen.add(record.id)
        if text is None:
            scored.append(unanswered(record))
        else:
            scored.append(Scored(record=record, text=text, score=scorer.score(record, text)))
    return Evaluation(scored=scored, metrics=scorer.summarize(scored))


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
