"""ScienceQA: choice letters with the table of its paper, and the image accuracy that vision-language papers report.

Extraction is LLaVA's ``eval_science_qa.py``, which everybody uses. In its total an unanswered question is wrong; its
image accuracy knows the answered questions only. The tables by subject, context and grade follow ScienceQA's own
``evaluate_acc.py`` in what they group by. Records carry ``subject`` (NAT, SOC, LAN), ``context`` (a list of TXT, IMG,
NO) and ``grade`` (G1-6, G7-12) in ``meta``; what a release leaves out gives no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..types import Metric, Record, Score, Scored
from . import choice
from .parsing import targets
from .statistics import rates


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which reading of the text counts.

    Attributes:
        rule: the de-facto official script, or what the first CoLLaVO release did: strip the text first, skip unanswered
            questions.
    """

    rule: Literal["scienceqa", "scienceqa_released"] = "scienceqa"


def grouped_by(options: Options) -> tuple[str, ...]:
    """Names in ``meta`` that accuracy is reported by."""
    return ("subject", "context", "grade")


def prepare(record: Record, options: Options) -> Record:
    """The record with the letter of the right option as its target; see `targets.letter`."""
    return targets.letter(record)


def own_reply(record: Record, options: Options) -> str:
    """The letter of the right option."""
    return str(record.target)


def score(record: Record, text: str, options: Options) -> Score:
    """Read the letter and compare it."""
    return choice.score_with(options.rule, record, text)


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Total and image accuracy with counts, then the paper's table."""
    missing = 0.0 if options.rule == "scienceqa" else None
    image = [s for s in scored if s.record.image is not None]
    return [
        *_accuracy(scored, "", missing),
        *_accuracy(image, "IMG", None),
        *_table(scored, missing),
        choice.lenient_accuracy(scored, missing=missing),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]


def _accuracy(scored: Sequence[Scored], group: str, missing: float | None) -> list[Metric]:
    accuracy = rates.accuracy(scored, group=group, missing=missing)
    correct = sum(s.score.value == 1.0 for s in scored)
    return [accuracy, rates.count("correct", correct, accuracy.num, group=group)]


def _table(scored: Sequence[Scored], missing: float | None) -> list[Metric]:
    """Accuracy by subject, context and grade, in the order of the paper."""
    rows = []
    for key, names in (
        ("subject", ("NAT", "SOC", "LAN")),
        ("context", ("TXT", "IMG", "NO")),
        ("grade", ("G1-6", "G7-12")),
    ):
        for name in names:
            members = [s for s in scored if name in s.record.meta.get(key, ())]
            if members:
                rows.append(rates.accuracy(members, group=f"{key}/{name}", missing=missing))
    return rows
