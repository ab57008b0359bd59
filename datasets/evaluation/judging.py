"""Benchmarks whose answers a judge helps to score (`base.JudgedScorer`): what to ask it, and scores from its verdicts.

Asking happens in between (`judges.chat.ChatJudge`), or not at all: recorded verdicts serve as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..declaration import Benchmark
from ..types import DataError, Record, Scored
from . import Evaluation
from .base import JudgedScorer, Scorer
from .judges.base import Request, Verdicts
from .predictions import unanswered
from .registry import scorer_of


def uses_judge(benchmark: Benchmark) -> bool:
    """Whether a judge can help to score a benchmark by the rule that its declaration names.

    Raises:
        DataError: unknown scorer or option.
    """
    return _with_judge(scorer_of(benchmark)) is not None


def _with_judge(scorer: Scorer) -> JudgedScorer | None:
    """The scorer as one that a judge helps; None where none has anything to decide."""
    return scorer if isinstance(scorer, JudgedScorer) and not scorer.unused() else None


def recorded_field(benchmark: Benchmark) -> str:
    """Under which name result files of a benchmark keep a judge's verdict next to each reply; "" where they do not.

    Raises:
        DataError: unknown scorer or option.
    """
    scorer = scorer_of(benchmark)
    return scorer.recorded if isinstance(scorer, JudgedScorer) else ""


def judge_requests(benchmark: Benchmark, answers: Iterable[tuple[Record, str]]) -> list[Request]:
    """What a judge must be asked about a benchmark's answers.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text.

    Raises:
        DataError: the scorer has no use for a judge.
    """
    return list(_judged_scorer(benchmark).requests(answers))


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
    scorer = _judged_scorer(benchmark)
    scored = [
        unanswered(record)
        if text is None
        else Scored(record=record, text=text, score=scorer.judged(record, text, verdicts.get(record.id, {})))
        for record, text in answers
    ]
    if verdicts and not any(item.record.id in verdicts for item in scored):
        raise DataError(
            f"benchmark {benchmark.name}: none of the {len(verdicts)} verdicts is on one of its records; "
            f"a verdict is on {next(iter(verdicts))}, a record is {scored[0].record.id if scored else 'nowhere'}"
        )
    return Evaluation(scored=scored, metrics=scorer.summarize(scored))


def method(benchmark: Benchmark, judge: str | None) -> str:
    """What decided about the answers, for results; "" where a judge never does.

    Args:
        benchmark: names the scorer.
        judge: name of the judge that was asked; None if there was none.
    """
    scorer = _with_judge(scorer_of(benchmark))
    if scorer is None:
        return ""
    if judge:
        return f"judge: {judge}"
    return f"no judge: {scorer.offline}" if scorer.offline else "no judge, and nothing decides without one: not scored"


def _judged_scorer(benchmark: Benchmark) -> JudgedScorer:
    scorer = scorer_of(benchmark)
    judged = _with_judge(scorer)
    if judged is None:
        option = f" {scorer.unused()}" if isinstance(scorer, JudgedScorer) else ""
        raise DataError(f"benchmark {benchmark.name}: its scorer '{benchmark.scorer}'{option} has no use for a judge")
    return judged
