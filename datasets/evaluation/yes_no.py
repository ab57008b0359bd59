"""Yes/no questions: an official reading of the answer, confusion counts, and figures within each group.

Rules (``rule`` in the declaration):

- ``pope``: POPE's ``evaluate.py`` (arXiv 2305.10355): the text up to the first period, commas removed, split at single
  spaces; "no" if one of the words is ``No``, ``not`` or ``no``, else "yes" - also for an empty or meaningless text.
- ``pope_released``: the same after lower-casing and stripping, as the released CoLLaVO evaluation does.

The official reading decides; whether a text holds an answer at all is judged apart and counted as ``no_answer``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..types import Metric, Record, Score, Scored
from .parsing import targets
from .statistics import rates

_YES_WORDS = r"yes|yeah|yep|yup|true|correct|right|certainly|indeed|there (?:is|are)|it is|是|有|对"
_NO_WORDS = r"no|not|nope|none|nothing|never|false|incorrect|cannot|can't|isn't|aren't|doesn't|don't|不|没|否|无"
_LATIN_YES = re.compile(rf"\b(?:{_YES_WORDS.partition('|是')[0]})\b")
_LATIN_NO = re.compile(rf"\b(?:{_NO_WORDS.partition('|不')[0]})\b|n't\b")
_CHINESE_YES, _CHINESE_NO = re.compile("[是有对]"), re.compile("[不没否无]")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to read and report.

    Attributes:
        rule: see the top of the file.
    """

    rule: Literal["pope", "pope_released"] = "pope"


def parse_pope(text: str) -> str:
    """POPE's official reading: ``yes`` or ``no``, never neither."""
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def states_an_answer(text: str) -> bool:
    """Whether a text says yes or no in any of the usual ways (full-width letters and Chinese included)."""
    plain = unicodedata.normalize("NFKC", text).lower()
    patterns = (_LATIN_YES, _LATIN_NO, _CHINESE_YES, _CHINESE_NO)
    return any(pattern.search(plain) for pattern in patterns)


def prepare(record: Record, options: Options) -> Record:
    """The record with ``yes`` or ``no`` as its target; see `targets.yes_no`."""
    return targets.with_target(record, targets.yes_no)


def own_reply(record: Record, options: Options) -> str:
    """The label."""
    return str(record.target)


def credits_empty(record: Record, options: Options) -> bool:
    """The official rule reads yes where nothing is said."""
    return bool(record.target == "yes")


def score(record: Record, text: str, options: Options) -> Score:
    """Read a text by the official rule and compare it with the label."""
    said = parse_pope(text.strip().lower() if options.rule == "pope_released" else text)
    value = None if record.target is None else float(said == record.target)
    silent = not states_an_answer(text)
    note = f"holds neither yes nor no; the official rule reads {said}" if silent else ""
    return Score(value=value, extracted=said, no_answer=silent, explanation=note)


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Accuracy, precision, recall, F1, yes ratio and confusion counts of every group, and the mean over groups.

    A figure that the official script cannot compute (a division by zero) is None, and so is a mean over one.
    """
    groups = rates.split_by([s for s in scored if s.score.value is not None], lambda s: s.record.group)
    rows = {name: _figures(name, members) for name, members in sorted(groups.items())}
    return [
        *_means(rows, list(groups.values())),
        *(metric for metrics in rows.values() for metric in metrics),
        *rates.unscored(scored),
    ]


def _figures(group: str, scored: Sequence[Scored]) -> list[Metric]:
    """The rows of one group; positive is yes."""
    pairs = [(s.score.extracted == "yes", s.record.target == "yes") for s in scored]
    tp, fp = pairs.count((True, True)), pairs.count((True, False))
    fn, tn = pairs.count((False, True)), pairs.count((False, False))
    num = len(pairs)
    precision = tp / (tp + fp) if tp + fp else None
    recall = tp / (tp + fn) if tp + fn else None
    f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
    clusters = [rates.image(s) for s in scored]
    return [
        rates.accuracy(scored, group=group),
        _over("precision", precision, scored, "yes", "extracted", group),
        _over("recall", recall, scored, "yes", "target", group),
        Metric(name="f1", value=f1, num=num, group=group),
        rates.mean("yes_ratio", [float(said) for said, _ in pairs], clusters=clusters, group=group),
        *(rates.count(name, n, num, group=group) for name, n in (("TP", tp), ("TN", tn), ("FP", fp), ("FN", fn))),
        rates.count("no_answer", sum(s.score.no_answer for s in scored), num, group=group),
    ]


def _over(name: str, value: float | None, scored: Sequence[Scored], word: str, of: str, group: str) -> Metric:
    """A share of right answers among those where the answer (or the label) is a word."""
    members = [s for s in scored if word == (s.score.extracted if of == "extracted" else s.record.target)]
    mean = rates.mean(
        name, [s.score.value or 0.0 for s in members], clusters=[rates.image(s) for s in members], group=group
    )
    return rates.exactly(mean, value)


_MEMBERS: dict[str, Callable[[Scored], float | None]] = {
    "accuracy": lambda s: s.score.value,
    "precision": lambda s: s.score.value if s.score.extracted == "yes" else None,
    "recall": lambda s: s.score.value if s.record.target == "yes" else None,
    "yes_ratio": lambda s: float(s.score.extracted == "yes"),
}
"""Figures that are means of credits: the credit of an answer, None where it does not count."""


def _means(rows: dict[str, list[Metric]], groups: Sequence[Sequence[Scored]]) -> list[Metric]:
    """Plain means over the groups, under the group name ``mean``."""
    means = []
    for metrics in zip(*rows.values(), strict=True):
        if metrics[0].kind != "rate":
            continue
        if metrics[0].name in _MEMBERS:
            credit = _MEMBERS[metrics[0].name]
            members = [[(value, rates.image(s)) for s in group if (value := credit(s)) is not None] for group in groups]
            means.append(rates.mean_of_groups(metrics[0].name, members))
            continue
        values = [metric.value for metric in metrics]
        value = None if None in values else sum(v for v in values if v is not None) / len(values)
        means.append(Metric(name=metrics[0].name, value=value, num=sum(m.num for m in metrics), group="mean"))
    return means
