"""Free answers graded from 0 to 1 by a judge: MM-Vet and sets of its kind.

Source of the arithmetic: MM-Vet's ``mm-vet_evaluator.py``: the mean grade; the same over the questions that need a
capability, and over those that need exactly one combination of them; every figure is averaged over the gradings
(``runs``), whose totals also give a standard deviation. There is no rule that grades without a judge: an answer without
a grade stays unscored, where the official script counts 0 after five unreadable replies.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from configs.common.words import quoted, shown

from ..registration.formats import cells
from ..types import DataError, Metric, Record, Score, Scored
from .base import JudgedScorer
from .judges import grading
from .judges.base import Request, UnjudgedScore, question_of
from .parsing import targets
from .statistics import rates

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class GradedScorer(JudgedScorer):
    """Free answers that a judge grades.

    Attributes:
        runs: how often each answer is graded; MM-Vet's paper averages 5.
        capability: name in a record's ``meta`` of the list of what its question needs; no tables where it is missing.
    """

    offline: ClassVar[str] = ""

    runs: int = 1
    capability: str = "capability"

    def __post_init__(self) -> None:
        """Check the number."""
        if self.runs < 1:
            raise DataError(f"graded: runs must be at least 1, not {self.runs}")

    def grouped_by(self) -> tuple[str, ...]:
        """Name in ``meta`` that grades are reported by."""
        return (self.capability,)

    def prepare(self, record: Record) -> Record:
        """The record with a reference answer as its target, several joined as alternatives, and a list of capabilities.

        Raises:
            MalformedError: an answer or a capability is neither a text nor a number.
        """
        found = targets.with_target(record, lambda value: "<OR>".join(targets.accepted(value)))
        needed = record.meta.get(self.capability)
        if cells.absent(needed):
            return found
        if isinstance(needed, str) and cells.as_list(needed) is None:
            needed = [name.strip() for name in needed.split(",") if name.strip()]
        return targets.with_meta(found, {self.capability: targets.names(needed, self.capability)})

    def own_reply(self, record: Record) -> str:
        """The reference answer."""
        return str(record.target)

    def own_verdict(self, record: Record, part: str) -> str:
        """What a judge says of the reference answer."""
        return "1.0"

    def score(self, record: Record, text: str) -> Score:
        """Without a judge there is no score."""
        return Score(value=None, extracted="", no_answer=not text.strip(), explanation="needs a judge's grade")

    def judged(self, record: Record, text: str, verdicts: Mapping[str, str]) -> Score:
        """Average the grades ``run1``, ``run2``, ...; fewer than the declared number leave the answer unscored."""
        grades: list[float] = []
        while (said := verdicts.get(f"run{len(grades) + 1}")) is not None:
            grades.append(_grade(record, said))
        empty = not text.strip()
        if len(grades) < self.runs:
            why = "no reference answer" if record.target is None else f"{len(grades)} of {self.runs} grades"
            return UnjudgedScore(no_answer=empty, explanation=why)
        return MeanGrade(
            value=sum(grades) / len(grades),
            extracted=" ".join(f"{grade:g}" for grade in grades),
            no_answer=empty,
            grades=tuple(grades),
        )

    def requests(self, answers: Iterable[tuple[Record, str]]) -> Iterator[Request]:
        """Every grading of every answer that has a reference to compare with."""
        for record, text in answers:
            for run in range(1, self.runs + 1):
                if record.target is not None:
                    yield grading.request(record.id, run, question_of(record), str(record.target), text)

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """Total with its spread over gradings, by capability and by combination of capabilities; all from 0 to 100."""
        done = [s for s in scored if isinstance(s.score, MeanGrade)]
        return [
            _mean("total", done, ""),
            *_runs(done),
            *_tables(done, self.capability),
            rates.no_answer(scored),
            *rates.unscored(scored),
        ]


@dataclass(frozen=True, kw_only=True)
class MeanGrade(Score):
    """A mean grade and what it is the mean of.

    Attributes:
        grades: one per grading.
    """

    grades: tuple[float, ...] = ()


def _grade(record: Record, said: str) -> float:
    try:
        grade = float(said)
    except ValueError:
        grade = -1.0
    if not 0.0 <= grade <= 1.0:
        raise DataError(f"record {shown(record.id)}: a grade is a number from 0 to 1, got {quoted(said)}")
    return grade


def _totals(scored: Sequence[Scored]) -> list[float]:
    """The mean of every grading, summed in the order of the data as the official script does, to its last bit."""
    runs = zip(*(s.score.grades for s in scored if isinstance(s.score, MeanGrade)), strict=False)
    return [sum(run) / len(run) * 100 for run in runs]


def _mean(name: str, scored: Sequence[Scored], group: str) -> Metric:
    values = [s.score.value or 0.0 for s in scored]
    metric = rates.mean(name, values, clusters=[rates.image(s) for s in scored], group=group, scale=100)
    totals = _totals(scored)
    return rates.exactly(metric, sum(totals) / len(totals)) if totals else metric


def _runs(scored: Sequence[Scored]) -> list[Metric]:
    """The total of every grading, and their standard deviation (of the gradings as a population)."""
    totals = _totals(scored)
    rows = [
        Metric(name="total", group=f"run/{k}", value=value, num=len(scored), kind="score")
        for k, value in enumerate(totals, start=1)
    ]
    spread = [Metric(name="std", value=statistics.pstdev(totals), num=len(totals), kind="score")] if totals else []
    return [*spread, *rows]


def _tables(scored: Sequence[Scored], key: str) -> Iterator[Metric]:
    """Groups ``capability/ocr`` and ``integration/ocr_math``, the most frequent first."""
    single: dict[str, list[Scored]] = {}
    joint: dict[tuple[str, ...], list[Scored]] = {}
    for item in scored:
        names = tuple(item.record.meta.get(key) or ())
        if names:
            joint.setdefault(_known(names, joint), []).append(item)
        for name in names:
            single.setdefault(name, []).append(item)
    groups = {f"capability/{name}": members for name, members in _frequent(single)}
    groups |= {f"integration/{'_'.join(names)}": members for names, members in _frequent(joint)}
    yield from (_mean("score", members, group) for group, members in groups.items())


def _known(names: tuple[str, ...], seen: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The combination in the order in which it was first listed."""
    return next((other for other in seen if set(other) == set(names)), names)


def _frequent(groups: Mapping[K, list[Scored]]) -> list[tuple[K, list[Scored]]]:
    return sorted(groups.items(), key=lambda pair: -len(pair[1]))
