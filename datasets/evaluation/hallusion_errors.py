"""What goes wrong in HallusionBench: a leaning towards yes, and errors of language (LH), of vision (VI) or of both.

The attribution follows ``utils.py`` of the benchmark. For every wrong or unclear answer it asks what was answered about
figure 0 and whether the two answers agree (``same``); a question pair bears the blame of all its answers. Where nobody
said whether they agree, there are no rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ..types import Metric, Record, Score, Scored
from .judges.correctness import CORRECT, INCORRECT, SAME
from .statistics import rates

_LANGUAGE, _VISION = frozenset({"LH"}), frozenset({"VI"})
_BOTH = _LANGUAGE | _VISION
_KINDS = ("LH", "VI", "Mix")


@dataclass(frozen=True, kw_only=True)
class ThreeWayScore(Score):
    """A verdict of three values.

    Attributes:
        verdict: `CORRECT`, `INCORRECT` or `UNCLEAR`.
        same: `SAME` or `DIFFERENT`: agreement with the answer to the same question about figure 0; "" if unknown.
    """

    verdict: str
    same: str = ""


_Checks = list[tuple[Record, ThreeWayScore]]


def bias(scored: Sequence[Scored], group: str) -> list[Metric]:
    """Share of answers that say yes less the share that should, and share of "no" among the labels answered wrongly.

    An answer counts as yes where right and label agree (right about yes, wrong about no), as in the official script.
    """
    done = [s for s in scored if s.score.value is not None]
    wrong = [s for s in done if s.score.value == 0.0]
    said = [float((s.score.value == 1.0) == (s.record.target == "yes")) for s in done]
    leaning = [a - float(s.record.target == "yes") for a, s in zip(said, done, strict=True)]
    return [
        rates.mean("yes_diff", leaning, clusters=[rates.image(s) for s in done], group=group, signed=True),
        rates.mean(
            "fp_ratio",
            [float(s.record.target == "no") for s in wrong],
            clusters=[rates.image(s) for s in wrong],
            group=group,
        ),
    ]


def attribution(scored: Sequence[Scored], checks: Mapping[str, ThreeWayScore], group: str) -> list[Metric]:
    """Counts of errors by kind: of question pairs (``LH``, ``VI``, ``Mix``) and of questions (``LH_cg``, ...).

    Args:
        scored: the verdicts.
        checks: the same by record id, for those that have one.
        group: see `Metric`.
    """
    pairs: dict[Hashable, _Checks] = {}
    for item in scored:
        meta = item.record.meta
        key = meta["category"], meta["subcategory"], meta["set_id"], meta["question_id"]
        if item.record.id in checks:
            pairs.setdefault(key, []).append((item.record, checks[item.record.id]))
    blamed = [_blame(members) for members in pairs.values()]
    if not blamed or None in blamed:
        return []
    by_pair = Counter(_kind(frozenset().union(*blames)) for blames in blamed if blames is not None)
    single = Counter(_kind(blame) for blames in blamed for blame in blames or ())
    num = sum(map(len, pairs.values()))
    return [
        *(rates.count(kind, by_pair[kind], len(pairs), group=group) for kind in _KINDS),
        *(rates.count(f"{kind}_cg", single[kind], num, group=group) for kind in _KINDS),
    ]


def _kind(blame: frozenset[str]) -> str:
    return "Mix" if blame == _BOTH else next(iter(blame), "")


def _blame(members: _Checks) -> list[frozenset[str]] | None:
    """What to blame for each answer of a question pair; None if it cannot be known."""
    first = next((check.verdict for record, check in members if record.meta["figure_id"] == "0"), None)
    others = [check for record, check in members if record.meta["figure_id"] != "0"]
    if first is None or any(check.verdict == INCORRECT and not check.same for check in others):
        return None
    return [
        _blame_original(record, check.verdict)
        if record.meta["figure_id"] == "0"
        else _blame_other(record, check, first)
        for record, check in members
    ]


def _blame_original(record: Record, verdict: str) -> frozenset[str]:
    if record.meta["category"] == "VD":
        return frozenset() if verdict == CORRECT else _VISION
    return _LANGUAGE if verdict == INCORRECT else frozenset()


def _blame_other(record: Record, check: ThreeWayScore, original: str) -> frozenset[str]:
    """What to blame for an answer about another figure than the original one."""
    wrong, same = check.verdict == INCORRECT, check.same == SAME
    if check.verdict == CORRECT:
        return frozenset()
    if record.meta["category"] == "VD":
        return _BOTH if wrong and same and original == CORRECT else _VISION
    if original == INCORRECT:
        return _LANGUAGE if wrong and same else _BOTH
    edited = record.meta["visual_input"] == "2"
    return _LANGUAGE if wrong and same and edited and original == CORRECT else _VISION
