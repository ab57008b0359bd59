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
from typing import Any, TypeAlias

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


Judging: TypeAlias = Callable[[Record, str, Mapping[str, str] | None], Score]
"""Judges one reply: with a judge's verdicts on it, by part, or without (None)."""


class Scorer:
    """A benchmark's rule with its options: looked up once, and used for every reply.

    Args:
        benchmark: names the scorer and its options.

    Attributes:
        module: the scorer.
        options: what its functions take as such.

    Raises:
        DataError: unknown scorer or option.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        where = f"benchmark {benchmark.name}, scorer"
        self.benchmark = benchmark
        self.module = named_module(__name__, __path__, benchmark.scorer, where, "summarize")
        self.options: Any = build_options(self.module.Options, benchmark.scoring, where)

    @property
    def uses_judge(self) -> bool:
        """Whether a judge can help to score by the rule that the options name."""
        asks = getattr(self.module, "asks", lambda options: True)
        return hasattr(self.module, "requests") and bool(asks(self.options))

    def check_judge(self) -> None:
        """Check that a judge has a part in the rule.

        Raises:
            DataError: it has none.
        """
        if not self.uses_judge:
            name, scorer = self.benchmark.name, self.benchmark.scorer
            rule = f" by the rule '{self.options.rule}'" if hasattr(self.module, "requests") else ""
            raise DataError(f"benchmark {name}: its scorer '{scorer}'{rule} has no use for a judge")

    def score(self, record: Record, text: str, verdicts: Mapping[str, str] | None = None) -> Score:
        """Judge one reply.

        Args:
            record: that it answers.
            text: the reply.
            verdicts: of a judge on this reply, by part; None where the rules alone decide.
        """
        judge = self.module.score if verdicts is None else self.module.judged
        verdict: Score = judge(record, text, *(() if verdicts is None else (verdicts,)), self.options)
        return verdict

    def evaluate(
        self,
        answers: Iterable[tuple[Record, str | None]],
        verdicts: Mapping[str, Mapping[str, str]] | None = None,
        score: Judging | None = None,
    ) -> Evaluation:
        """Judge all replies and sum them up; replies are already joined to their records by id.

        Args:
            answers: records with the model's text; None for a record that could not be asked.
            verdicts: of a judge, by record and part; what it was asked in vain stays unscored. None for no judge.
            score: judges one reply; `score` if None.

        Raises:
            DataError: a record is answered twice; or the scorer has no use for verdicts, or none is on a record.
        """
        if verdicts is not None:
            self.check_judge()
        score, scored = score or self.score, dict[str, Scored]()
        for record, text in answers:
            if record.id in scored:
                raise DataError(
                    f"benchmark {self.benchmark.name}: {shown(record.id)} is answered twice; each id is scored once"
                )
            said = None if verdicts is None else verdicts.get(record.id, {})
            scored[record.id] = (
                unanswered(record)
                if text is None
                else Scored(record=record, text=text, score=score(record, text, said))
            )
        if verdicts and not scored.keys() & verdicts.keys():
            raise DataError(
                f"benchmark {self.benchmark.name}: none of the {len(verdicts)} verdicts is on one of its records; "
                f"a verdict is on {next(iter(verdicts))}, a record is {next(iter(scored), 'nowhere')}"
            )
        found = list(scored.values())
        return Evaluation(scored=found, metrics=self.module.summarize(found, self.options))


def score(benchmark: Benchmark, record: Record, text: str) -> Score:
    """Judge one answer by the benchmark's rule; for many, make one `Scorer`.

    Raises:
        DataError: unknown scorer or option.
    """
    return Scorer(benchmark).score(record, text)


def evaluate(benchmark: Benchmark, answers: Iterable[tuple[Record, str | None]]) -> Evaluation:
    """Score a benchmark by its rules alone, see `Scorer.evaluate`.

    Raises:
        DataError: unknown scorer or option, or a record that is answered twice.
    """
    return Scorer(benchmark).evaluate(answers)


def unit_of(benchmark: Benchmark) -> Callable[[Record], str]:
    """What a benchmark's scorer takes together: from a record to the name of its unit.

    A module with a function ``unit`` says it; elsewhere every record stands for itself.

    Raises:
        DataError: unknown scorer or option.
    """
    declared: Callable[[Record], str] = getattr(Scorer(benchmark).module, "unit", lambda record: record.id)
    return declared


def groups_of(benchmark: Benchmark) -> Callable[[Record], tuple[str, ...]]:
    """What a benchmark's records are reported under, coarse to fine.

    That is their group, then what ``meta`` has under the names that the module's ``grouped_by``, or the option ``by``,
    gives.

    Raises:
        DataError: unknown scorer or option.
    """
    scorer = Scorer(benchmark)
    module, options = scorer.module, scorer.options
    keys = module.grouped_by(options) if hasattr(module, "grouped_by") else getattr(options, "by", ())
    return lambda record: (record.group, *(_named(record.meta, key) for key in keys))


def _named(meta: Mapping[str, Any], key: str) -> str:
    """A value in ``meta`` as the name of a group; several at once are one group."""
    value = meta.get(key)
    if value is None:
        return ""
    return "+".join(sorted(map(str, value))) if isinstance(value, (list, tuple)) else str(value)
