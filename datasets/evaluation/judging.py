"""Benchmarks whose answers a judge helps to score (`base.JudgedScorer`): whether it has a part, and what to ask it."""

from __future__ import annotations

from collections.abc import Iterable

from ..declaration import Benchmark
from ..types import Record
from . import benchmark_scorer
from .base import JudgedScorer
from .judges.base import Request


def uses_judge(benchmark: Benchmark) -> bool:
    """Whether a judge can help to score a benchmark by the rule that its declaration names.

    Raises:
        DataError: unknown scorer or option.
    """
    return benchmark_scorer(benchmark).uses_judge


def recorded_field(benchmark: Benchmark) -> str:
    """Under which name result files of a benchmark keep a judge's verdict next to each reply; "" where they do not.

    Raises:
        DataError: unknown scorer or option.
    """
    rule = benchmark_scorer(benchmark).rule
    return rule.recorded if isinstance(rule, JudgedScorer) else ""


def judge_requests(benchmark: Benchmark, answers: Iterable[tuple[Record, str]]) -> list[Request]:
    """What a judge must be asked about a benchmark's answers.

    Args:
        benchmark: names the scorer and its options.
        answers: records with the model's text.

    Raises:
        DataError: the scorer has no use for a judge.
    """
    return list(benchmark_scorer(benchmark).with_judge().requests(answers))


def method(benchmark: Benchmark, judge: str | None) -> str:
    """What decided about the answers, for results; "" where a judge never does.

    Args:
        benchmark: names the scorer.
        judge: name of the judge that was asked; None if there was none.
    """
    scorer = benchmark_scorer(benchmark).judged
    if scorer is None:
        return ""
    if judge:
        return f"judge: {judge}"
    return f"no judge: {scorer.offline}" if scorer.offline else "no judge, and nothing decides without one: not scored"
