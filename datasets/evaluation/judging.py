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

from collections.abc import Iterable

from ..declaration import Benchmark
from ..types import Record
from . import Evaluation, Scorer
from .judges.base import Request, Verdicts


def uses_judge(benchmark: Benchmark) -> bool:
    """Whether a judge can help to score a benchmark by the rule that its declaration names.

    Raises:
        DataError: unknown scorer or option.
    """
    return Scorer(benchmark).uses_judge


def recorded_field(benchmark: Benchmark) -> str:
    """Under which name result files of a benchmark keep a judge's verdict next to each reply; "" where they do not.

    Raises:
        DataError: unknown scorer or option.
    """
    return str(getattr(Scorer(benchmark).module, "RECORDED", ""))


def judge_requests(benchmark: Benchmark, answers: Iterable[tuple[Record, str]]) -> list[Request]:
    """What a judge must be asked about a benchmark's answers.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text.

    Raises:
        DataError: the scorer has no use for a judge.
    """
    scorer = Scorer(benchmark)
    scorer.check_judge()
    return list(scorer.module.requests(answers, scorer.options))


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
    return Scorer(benchmark).evaluate(answers, verdicts)


def method(benchmark: Benchmark, judge: str | None) -> str:
    """What decided about the answers, for results; "" where a judge never does.

    Args:
        benchmark: names the scorer.
        judge: name of the judge that was asked; None if there was none.
    """
    scorer = Scorer(benchmark)
    if not scorer.uses_judge:
        return ""
    if judge:
        return f"judge: {judge}"
    offline = scorer.module.OFFLINE
    return f"no judge: {offline}" if offline else "no judge, and nothing decides without one: not scored"
