"""Benchmarks whose answers a judge helps to score: what to ask it, scores from its verdicts, and what was used.

A scorer that can use a judge has, next to ``score`` and ``summarize``:

- ``requests(answers, options)``: what a judge must be asked about some answers; nothing where its rules decide;
- ``judged(record, text, verdicts, options)``: the score with the verdicts on that record, pure like ``score``;
- ``OFFLINE``: what decides when there is no judge; "" where nothing does;
- ``RECORDED``, where the authors' result files keep a judge's verdicts next to the replies: the name of that field;
- ``asks(options)``, where some of its rules have no use for a judge: whether the chosen one has.

Asking happens in between (`judges.chat.ChatJudge`), or not at all: recorded verdicts serve as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from .. import evaluation
from ..declaration import Benchmark
from ..options import build_options
from ..registration import named_module
from ..types import DataError, Record, Scored
from . import Evaluation
from .judges.base import Request, Verdicts
from .predictions import unanswered


def uses_judge(benchmark: Benchmark) -> bool:
    """Whether a judge can help to score a benchmark by the rule that its declaration names.

    Raises:
        DataError: unknown scorer or option.
    """
    return _has_use(*_scorer(benchmark))


def _has_use(module: ModuleType, options: Any) -> bool:
    return hasattr(module, "requests") and (not hasattr(module, "asks") or bool(module.asks(options)))


def recorded_field(benchmark: Benchmark) -> str:
    """Under which name result files of a benchmark keep a judge's verdict next to each reply; "" where they do not.

    Raises:
        DataError: unknown scorer or option.
    """
    return str(getattr(_scorer(benchmark)[0], "RECORDED", ""))


def judge_requests(benchmark: Benchmark, answers: Iterable[tuple[Record, str]]) -> list[Request]:
    """What a judge must be asked about a benchmark's answers.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text.

    Raises:
        DataError: the scorer has no use for a judge.
    """
    module, options = _judged_scorer(benchmark)
    return list(module.requests(answers, options))


def evaluate_judged(
    benchmark: Benchmark, answers: Iterable[tuple[Record, str | None]], verdicts: Verdicts
) -> Evaluation:
    """Score a benchmark with the verdicts of a judge; what it was asked in vain stays unscored.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text; None for a record that was not answered.
        verdicts: see `judges.base.Verdicts`.

    Raises:
        DataError: the scorer has no use for verdicts, there are none on any of the records, or one is malformed.
    """
    module, options = _judged_scorer(benchmark)
    scored = [
        unanswered(record)
        if text is None
        else Scored(record=record, text=text, score=module.judged(record, text, verdicts.get(record.id, {}), options))
        for record, text in answers
    ]
    if verdicts and not any(item.record.id in verdicts for item in scored):
        raise DataError(
            f"benchmark {benchmark.name}: none of the {len(verdicts)} verdicts is on one of its records; "
            f"a verdict is on {next(iter(verdicts))}, a record is {scored[0].record.id if scored else 'nowhere'}"
        )
    return Evaluation(scored=scored, metrics=module.summarize(scored, options))


def method(benchmark: Benchmark, judge: str | None) -> str:
    """What decided about the answers, for results; "" where a judge never does.

    Args:
        benchmark: names the scorer.
        judge: name of the judge that was asked; None if there was none.
    """
    module, options = _scorer(benchmark)
    if not _has_use(module, options):
        return ""
    if judge:
        return f"judge: {judge}"
    return f"no judge: {module.OFFLINE}" if module.OFFLINE else "no judge, and nothing decides without one: not scored"


def _judged_scorer(benchmark: Benchmark) -> tuple[ModuleType, Any]:
    module, options = _scorer(benchmark)
    if not _has_use(module, options):
        rule = f" by the rule '{options.rule}'" if hasattr(module, "requests") else ""
        raise DataError(f"benchmark {benchmark.name}: its scorer '{benchmark.scorer}'{rule} has no use for a judge")
    return module, options


def _scorer(benchmark: Benchmark) -> tuple[ModuleType, Any]:
    where = f"benchmark {benchmark.name}, scorer"
    module = named_module(evaluation.__name__, evaluation.__path__, benchmark.scorer, where, "summarize")
    scoring: Mapping[str, Any] = benchmark.scoring
    return module, build_options(module.Options, scoring, where)
