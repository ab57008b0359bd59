"""Scorers: answers into verdicts and figures. A scorer is a module here; a declaration names it.

A scorer has ``Options``, ``score`` and ``summarize``, and says next to them which targets it understands:

- ``prepare(record, options)``: the record with its target, and what else the rule needs, in the form that ``score``
  compares with; it raises ``MalformedError`` for a record that the rule cannot score (see `targets`);
- ``own_reply(record, options)``: the reply that says the record's target;
- ``highest(record, options)``: the most that the rule gives for it; 1 where there is no such function;
- ``credits_empty(record, options)``: whether the rule finds an answer in an empty reply; never if there is none;
- ``gap(records)``: why its main figure would have no value over these records; "" where it has one;
- ``own_verdict(record, part, options)``: what a judge replies about ``own_reply`` (see `judging`).

`scorable` checks records with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from configs.common.words import shown

from ..declaration import Benchmark
from ..options import build_options
from ..registration import named_module
from ..types import DataError, Metric, Record, Score, Scored
from .predictions import unanswered


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
    """Judge one answer by the benchmark's rule.

    Raises:
        DataError: unknown scorer or option.
    """
    module, options = _scorer(benchmark)
    verdict: Score = module.score(record, text, options)
    return verdict


def evaluate(benchmark: Benchmark, answers: Iterable[tuple[Record, str | None]]) -> Evaluation:
    """Score a benchmark; answers are already joined to their records by id.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text; None for a record that could not be asked.

    Raises:
        DataError: unknown scorer or option, or a record that is answered twice.
    """
    module, options = _scorer(benchmark)
    scored: list[Scored] = []
    seen: set[str] = set()
    for record, text in answers:
        if record.id in seen:
            raise DataError(f"benchmark {benchmark.name}: {shown(record.id)} is answered twice; each id is scored once")
        seen.add(record.id)
        if text is None:
            scored.append(unanswered(record))
        else:
            scored.append(Scored(record=record, text=text, score=module.score(record, text, options)))
    return Evaluation(scored=scored, metrics=module.summarize(scored, options))


def unit_of(benchmark: Benchmark) -> Callable[[Record], str]:
    """What a benchmark's scorer takes together: from a record to the name of its unit.

    A module with a function ``unit`` says it; elsewhere every record stands for itself.

    Raises:
        DataError: unknown scorer or option.
    """
    module, _ = _scorer(benchmark)
    declared: Callable[[Record], str] = getattr(module, "unit", lambda record: record.id)
    return declared


def groups_of(benchmark: Benchmark) -> Callable[[Record], tuple[str, ...]]:
    """What a benchmark's records are reported under, coarse to fine.

    That is their group, then what ``meta`` has under the names that the module's ``grouped_by``, or the option ``by``,
    gives.

    Raises:
        DataError: unknown scorer or option.
    """
    module, options = _scorer(benchmark)
    keys = module.grouped_by(options) if hasattr(module, "grouped_by") else getattr(options, "by", ())
    return lambda record: (record.group, *(_named(record.meta, key) for key in keys))


def _named(meta: Mapping[str, Any], key: str) -> str:
    """A value in ``meta`` as the name of a group; several at once are one group."""
    value = meta.get(key)
    if value is None:
        return ""
    return "+".join(sorted(map(str, value))) if isinstance(value, (list, tuple)) else str(value)


def _scorer(benchmark: Benchmark) -> tuple[ModuleType, Any]:
    where = f"benchmark {benchmark.name}, scorer"
    module = named_module(__name__, __path__, benchmark.scorer, where, "summarize")
    return module, build_options(module.Options, benchmark.scoring, where)
