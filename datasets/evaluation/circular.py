"""MMBench: a question counts only if it is answered rightly under every order of its options.

Source: VLMEvalKit's circular evaluation with exact matching. Every pass is a record; ``meta["question"]`` joins the
passes of one question and ``meta["pass"]`` numbers them from 0. How many passes there are follows from the records,
not from the number of options: 53 questions of the first dev set have four options and three passes.
Plain accuracies over the first passes and over all rows are reported next to it, and none of them is the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..registration.formats.files import MalformedError
from ..types import Metric, Record, Score, Scored
from . import choice
from .base import Submission
from .judges.base import UnjudgedScore
from .parsing import letters, targets
from .statistics import rates
from .submission import MMBENCH

ABILITIES = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
"""Short names of the six abilities of the second level, as in the benchmark's tables."""


@dataclass(frozen=True, kw_only=True)
class CircularScorer(choice.LetterScorer):
    """MMBench's circular evaluation.

    Attributes:
        rule: a rule of `letters.RULES`.
        by: names in ``meta`` to report separately by.
    """

    submission: ClassVar[Submission | None] = MMBENCH

    rule: str = "mmbench"
    by: tuple[str, ...] = ("l2-category", "category")

    def __post_init__(self) -> None:
        """Check the name of the rule."""
        choice.check_rule(self.rule)

    def grouped_by(self) -> tuple[str, ...]:
        """What ``by`` names."""
        return self.by

    def unit(self, record: Record) -> str:
        """The passes of a question."""
        return str(record.meta.get("question", record.id))

    def prepare(self, record: Record) -> Record:
        """The record with its letter, and the number of its pass as a number.

        Raises:
            MalformedError: it has no options or no such target, or does not say which pass of which question it is.
        """
        targets.need(record, "circular", "question", "pass")
        try:
            number = int(targets.whole(record.meta["pass"], "pass"))
        except ValueError:
            raise MalformedError(f"'pass' should be a whole number from 0, got {record.meta['pass']!r}") from None
        return super().prepare(targets.with_meta(record, {"pass": number}))

    def gap(self, records: Sequence[Record]) -> str:
        """Why no question would count: that none has a first pass."""
        if not records or any(record.meta["pass"] == 0 for record in records):
            return ""
        return (
            f"no record is a first pass: 'pass' counts from 0, and the least is {min(r.meta['pass'] for r in records)}"
        )

    def credits_empty(self, record: Record) -> bool:
        """Whether the rule finds a letter in an empty reply."""
        return bool(letters.RULES[self.rule]("", choice.options_of(record)))

    def score(self, record: Record, text: str) -> Score:
        """Read the letter of one pass and compare it."""
        return choice.score_with(self.rule, record, text)

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """Circular, first-pass and all-rows accuracy, over all and by ability."""
        unsure = {s.record.meta["question"] for s in scored if isinstance(s.score, UnjudgedScore)}
        answered = [s for s in scored if s.score.value is not None and s.record.meta["question"] not in unsure]
        metrics = _accuracies(answered, "")
        for key in self.by:
            named = [s for s in answered if s.record.meta.get(key)]
            for name, members in rates.by_meta(named, key).items():
                metrics += _accuracies(members, f"{key}/{ABILITIES.get(name, name)}")
        return [
            *metrics,
            choice.lenient_accuracy(answered, missing=None),
            rates.no_answer(scored),
            *rates.unscored(scored),
        ]


def hits(scored: Sequence[Scored]) -> dict[str, float]:
    """Per question 1.0 if every answered pass is right, else 0.0.

    A pass without an answer is not held against its question, but a question whose first pass is unanswered is left
    out, as in the official script.
    """
    answered = [s for s in scored if s.score.value is not None]
    passes = rates.split_by(answered, lambda s: str(s.record.meta["question"]))
    return {
        question: float(all(s.score.value == 1.0 for s in members))
        for question, members in passes.items()
        if any(s.record.meta["pass"] == 0 for s in members)
    }


def _accuracies(answered: Sequence[Scored], group: str) -> list[Metric]:
    first = [s for s in answered if s.record.meta["pass"] == 0]
    return [
        rates.mean("circular_accuracy", list(hits(answered).values()), group=group),
        rates.accuracy(first, name="first_pass_accuracy", group=group),
        rates.accuracy(answered, name="row_accuracy", group=group),
    ]
