"""Q-Bench (LLVisionQA): does the text hold the letter of the right candidate?

Rules (``rule`` in the declaration):

- ``qbench``: what the benchmark's team scores its own models with (Q-Instruct): right if the letter of the right
  candidate stands anywhere in the stripped text, capital; "ABC" is right whatever is right, and so is any answer that
  begins "Answer" where A is.
- ``qbench_first``: a sibling script of theirs: the first character of the text.
- ``qbench_released``: the first CoLLaVO release: the place of the text in "ABCD", and the last candidate if it is not
  there.

The robust reading of `letters.lenient` is reported next to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..types import Metric, Record, Score, Scored
from . import choice
from .statistics import rates


@dataclass(frozen=True, kw_only=True)
class QBenchScorer(choice.LetterScorer):
    """Q-Bench's rules.

    Attributes:
        rule: see the top of the file.
        by: names in a record's ``meta`` to report separately by.
    """

    rule: Literal["qbench", "qbench_first", "qbench_released"] = "qbench"
    by: tuple[str, ...] = ("type", "concern")

    def grouped_by(self) -> tuple[str, ...]:
        """What ``by`` names."""
        return self.by

    def credits_empty(self, record: Record) -> bool:
        """Whether the rule takes an empty reply for a candidate, as the release did."""
        return self.rule == "qbench_released"

    def score(self, record: Record, text: str) -> Score:
        """Read the text by the rule and compare it with the right letter."""
        choices = choice.options_of(record)
        said = _letters(text, list(choices), self.rule)
        value = None if record.target is None else float(_right(said, choices, record.target, self.rule))
        silent = not said or (self.rule == "qbench_released" and text.strip() not in choices)
        note = f"rule '{self.rule}' finds no letter" if silent and text.strip() else ""
        return Score(value=value, extracted=said, no_answer=silent, explanation=note)

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy over all, by kind of question, and under the robust reading."""
        return [
            rates.accuracy(scored),
            *rates.table(scored, self.by),
            choice.lenient_accuracy(scored, missing=None),
            rates.no_answer(scored),
            *rates.unscored(scored),
        ]


def _letters(text: str, known: Sequence[str], rule: str) -> str:
    """All letters of candidates that the rule sees in a text, in their order; "" for none."""
    text = text.strip()
    if rule == "qbench":
        return "".join(letter for letter in known if letter in text)
    if rule == "qbench_first":
        return text[:1] if text[:1] in known else ""
    place = "ABCD".find(text)
    return "ABCD"[place] if place >= 0 else known[-1]


def _right(said: str, choices: Mapping[str, str], target: str, rule: str) -> bool:
    """Whether the right letter was said; the release compared the candidates' texts."""
    return choices.get(said) == choices[target] if rule == "qbench_released" else target in said
