"""Two runs of a benchmark compared record by record: the difference of credits, and which records changed.

Every record stands against itself, so the difference is known far better than two separate intervals tell. The interval
is clustered by image (``datasets/evaluation/statistics/intervals.py``). Where all credits are 0 or 1, McNemar's exact
test stands next to it (McNemar, Psychometrika 12 (1947) 153): of records on which only one run is right, each run has
a binomial share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from datasets.evaluation.statistics import intervals

from .prediction import Prediction, target_words


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The second run less the first, in points of credit from 0 to 1.

    Attributes:
        group: which records; "" for all.
        num: records with a credit in both.
        first: mean credit of the first run on these; None without any.
        second: of the second.
        value: second less first; None without any record.
        low: lower end of its 95 % interval, clustered by image.
        high: upper end.
        second_better: records for which the second has more credit.
        first_better: records for which the first has.
        p_value: of McNemar's exact two-sided test; None where a credit is neither 0 nor 1.
    """

    group: str
    num: int
    first: float | None = None
    second: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    second_better: int = 0
    first_better: int = 0
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """A record whose reply or credit is another one.

    Attributes:
        id: of the record.
        group: see `Prediction`.
        question: as the release has it.
        target: in words.
        first: reply of the first run; None where it has none.
        second: of the second.
        first_score: its credit; None where nothing decided.
        second_score: of the second.
        change: better, worse, or reply (the credit is the same, or unknown on one side).
    """

    id: str
    group: str
    question: str
    target: str
    first: str | None
    second: str | None
    first_score: float | None
    second_score: float | None
    change: str

    def as_row(self, dataset: str) -> dict[str, Any]:
        """For a file of changes."""
        return {"dataset": dataset, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs of one benchmark.

    Attributes:
        overall: over all records.
        groups: by group, where there are several.
        changes: in data order.
        only_first: ids that only the first run has.
        only_second: ids that only the second has.
        undecided: records that both have, but without a credit in one of them.
    """

    overall: Difference
    groups: Sequence[Difference]
    changes: Sequence[Change]
    only_first: Sequence[str]
    only_second: Sequence[str]
    undecided: int


def compare_runs(first: Sequence[Prediction], second: Sequence[Prediction]) -> Comparison:
    """Compare the predictions of two runs on the same benchmark, by the ids of its records."""
    others = {prediction.id: prediction for prediction in second}
    pairs = [(one, others[one.id]) for one in first if one.id in others]
    decided = [(one, other) for one, other in pairs if one.score is not None and other.score is not None]
    names = list(dict.fromkeys(one.group for one, _ in decided))
    groups = [difference([pair for pair in decided if pair[0].group == name], name) for name in names]
    known = {one.id for one in first}
    return Comparison(
        overall=difference(decided),
        groups=groups if len(names) > 1 else (),
        changes=[change for one, other in pairs if (change := change_of(one, other)) is not None],
        only_first=[one.id for one in first if one.id not in others],
        only_second=[other.id for other in second if other.id not in known],
        undecided=len(pairs) - len(decided),
    )


def difference(pairs: Sequence[tuple[Prediction, Prediction]], group: str = "") -> Difference:
    """The mean difference over records that have a credit in both runs.

    Args:
        pairs: first and second run's prediction of each.
        group: which records they are.
    """
    credits = [(one.score or 0.0, other.score or 0.0) for one, other in pairs]
    if not credits:
        return Difference(group=group, num=0)
    estimate = intervals.signed_mean([after - before for before, after in credits], [one.cluster for one, _ in pairs])
    better = sum(after > before for before, after in credits)
    worse = sum(after < before for before, after in credits)
    binary = all(credit in (0.0, 1.0) for pair in credits for credit in pair)
    return Difference(
        group=group,
        num=len(credits),
        first=sum(before for before, _ in credits) / len(credits),
        second=sum(after for _, after in credits) / len(credits),
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        second_better=better,
        first_better=worse,
        p_value=mcnemar(better, worse) if binary else None,
    )


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Args:
        one: records on which only one of two runs is right.
        other: records on which only the other is.
    Returns: the probability of so uneven a split if both were equally good; 1 where they never differ.
    """
    total, fewer = one + other, min(one, other)
    if one == other:
        return 1.0
    tail, term = 1, 1
    for taken in range(1, fewer + 1):
        term = term * (total - taken + 1) // taken
        tail += term
    return min(1.0, float(Fraction(2 * tail, 2**total)))


def change_of(one: Prediction, other: Prediction) -> Change | None:
    """What changed of a record; None where neither reply nor credit did."""
    if one.text == other.text and one.score == other.score:
        return None
    gap = 0.0 if one.score is None or other.score is None else other.score - one.score
    return Change(
        id=one.id,
        group=one.group,
        question=one.question,
        target=target_words(one.target),
        first=one.text,
        second=other.text,
        first_score=one.score,
        second_score=other.score,
        change="better" if gap > 0 else "worse" if gap < 0 else "reply",
    )
