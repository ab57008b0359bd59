"""Means with a standard error, an interval and a count: the arithmetic that all scorers share.

Questions about one image are not independent, so the standard error is clustered by image (for one question per image
it is the usual ``sqrt(p (1 - p) / n)``), and so is the interval (``intervals.py``), which stays within the scale. A
figure over nothing is None, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Literal

from ...types import Metric, Scored, UnansweredScore
from . import intervals
from .intervals import Estimate

Kind = Literal["rate", "score"]

Outcome = Literal["scored", "unscored", "withheld", "error"]
"""What became of a record: every one is exactly one of these, see `outcome`."""


def outcome(scored: Scored) -> Outcome:
    """What became of a record, in the one sense of all results, tables and messages.

    Returns: ``scored``: it has a credit, also 0 for a reply that cannot be read (``no_answer``); ``unscored``: it has a
        reply and a target, but nothing decided (a judge's verdict is missing or unreadable, or no judge was asked);
        ``withheld``: the release does not tell its target; ``error``: it has no reply.
    """
    if isinstance(scored.score, UnansweredScore):
        return "error"
    if scored.score.value is not None:
        return "scored"
    return "withheld" if scored.record.target is None else "unscored"


def metric(
    name: str, estimate: Estimate | None, num: int, *, group: str = "", scale: float = 1.0, kind: Kind = "rate"
) -> Metric:
    """A row for an estimate; without a value where there is none.

    Args:
        name: the metric's name.
        estimate: see `Estimate`.
        num: how many samples it is computed from.
        group: what the samples have in common; "" for the whole benchmark.
        scale: what value, error and interval are multiplied by.
        kind: see `Metric`.
    """
    if estimate is None:
        return Metric(name=name, value=None, num=num, group=group, kind=kind)
    return Metric(
        name=name,
        value=scale * estimate.value,
        num=num,
        group=group,
        stderr=scale * estimate.stderr,
        low=scale * estimate.low,
        high=scale * estimate.high,
        kind=kind,
    )


def exactly(row: Metric, value: float | None) -> Metric:
    """A row with its figure computed in an official script's order, to the last bit; its interval still contains it."""
    if value is None or row.low is None or row.high is None:
        return replace(row, value=value)
    return replace(row, value=value, low=min(row.low, value), high=max(row.high, value))


def mean(
    name: str,
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    group: str = "",
    scale: float = 1.0,
    signed: bool = False,
) -> Metric:
    """Average of per-sample credits.

    Args:
        name: the metric's name.
        values: one credit per sample, between 0 and 1.
        clusters: what each sample depends on (its image); samples count as independent if left out.
        group: what the samples have in common; "" for the whole benchmark.
        scale: 1 reports a rate; anything else multiplies value, error and interval and reports a score.
        signed: credits are between -1 and 1.
    """
    average = intervals.signed_mean if signed else intervals.mean
    kind: Kind = "rate" if scale == 1.0 else "score"
    estimate = average(values, clusters) if values else None
    return metric(name, estimate, len(values), group=group, scale=scale, kind=kind)


def mean_of_groups(name: str, groups: Sequence[Sequence[tuple[float, Hashable]]], *, group: str = "mean") -> Metric:
    """Plain average over groups of their averages, e.g. over splits of different sizes.

    Args:
        name: the metric's name.
        groups: credit and cluster of every sample, group by group; clusters may span groups (the same image).
        group: see `mean`.
    Returns: no value if there is no group, or an empty one.
    """
    num = sum(map(len, groups))
    if not groups or not all(groups):
        return Metric(name=name, value=None, num=num, group=group)
    parts = [intervals.mean([value for value, _ in each], [cluster for _, cluster in each]) for each in groups]
    row = metric(name, intervals.weighted_sum([(1 / len(parts), part) for part in parts]), num, group=group)
    return exactly(row, sum(part.value for part in parts) / len(parts))


def count(name: str, number: int, num: int, *, group: str = "") -> Metric:
    """A number of samples out of ``num``."""
    return Metric(name=name, value=number, num=num, group=group, kind="count")


def image(scored: Scored) -> Hashable:
    """What the answers to one image share: the image's name, or the record itself for a text-only question."""
    image = scored.record.image
    return ("image", image.name) if image else ("record", scored.record.id)


def accuracy(
    scored: Sequence[Scored], *, name: str = "accuracy", group: str = "", missing: float | None = None
) -> Metric:
    """Mean credit of the answers.

    Args:
        scored: the verdicts; those without a value are unanswered or withheld.
        name: the metric's name.
        group: see `mean`.
        missing: the credit of an unanswered question whose answer is known; None leaves it out.
    """
    counted = [s for s in scored if s.score.value is not None or (missing is not None and s.record.target is not None)]
    values = [missing if s.score.value is None else s.score.value for s in counted]
    return mean(name, [v for v in values if v is not None], clusters=[image(s) for s in counted], group=group)


def no_answer(scored: Sequence[Scored]) -> Metric:
    """How many replies hold no recognisable answer."""
    return count("no_answer", sum(s.score.no_answer for s in scored), len(scored))


def unscored(scored: Sequence[Scored]) -> list[Metric]:
    """How many records have no score, by the reason (see `outcome`); a row for each that occurs."""
    found = Counter(map(outcome, scored))
    rows: dict[str, Outcome] = {"unscored": "unscored", "withheld": "withheld", "errors": "error"}
    return [count(name, found[reason], len(scored)) for name, reason in rows.items() if found[reason]]


def split_by(scored: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, list[Scored]]:
    """Group verdicts by a key, groups in order of first appearance."""
    groups: dict[str, list[Scored]] = {}
    for item in scored:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_meta(scored: Sequence[Scored], key: str) -> dict[str, list[Scored]]:
    """Group verdicts by a name in their record's ``meta``, numbers before words, each in order; "" where it lacks."""
    groups = split_by(scored, lambda s: str(s.record.meta.get(key, "")))
    return {name: groups[name] for name in sorted(groups, key=lambda n: (not n.isdigit(), n.zfill(9), n))}


def table(scored: Sequence[Scored], keys: Sequence[str], *, missing: float | None = None) -> list[Metric]:
    """`accuracy` for every value of every key in ``meta``, as groups ``key/value``."""
    return [
        accuracy(members, group=f"{key}/{name}", missing=missing)
        for key in keys
        for name, members in by_meta(scored, key).items()
    ]
