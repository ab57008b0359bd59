"""MME: yes or no to two questions about an image, 100 for each right answer and 100 for both, on average.

Source: the benchmark's ``calculation.py``. It pairs consecutive lines; here the two questions of an image are paired
by category and image, so that neither the order nor the number of processes can matter. A record's target is ``yes``
or ``no``, its group the subtask, and ``meta["pair"]`` what its pair shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Metric, Record, Score, Scored
from .parsing import targets
from .statistics import intervals, rates

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

_FULL_PAIR = 2
_SPACES = str.maketrans("\n\t", "  ")


@dataclass(frozen=True, kw_only=True)
class Options:
    """MME has nothing to choose."""


def first_four(text: str) -> str:
    """The official reading: ``yes`` or ``no`` among the first four characters, "yes" before "no"; "" for neither.

    Nothing is stripped, so that " yes" counts and "  yes" does not; "know" is a no.
    """
    head = text.translate(_SPACES).lower()
    if head in ("yes", "no"):
        return head
    return next((word for word in ("yes", "no") if word in head[:4]), "")


def unit(record: Record) -> str:
    """The pair of an image."""
    return f"{record.group}/{record.meta.get('pair', record.id)}"


def prepare(record: Record, options: Options) -> Record:
    """The record with ``yes`` or ``no`` as its target.

    Raises:
        MalformedError: the target is neither, or the record does not say what pair it belongs to.
    """
    targets.need(record, "mme", "pair")
    return targets.with_target(record, targets.yes_no)


def own_reply(record: Record, options: Options) -> str:
    """The label."""
    return str(record.target)


def score(record: Record, text: str, options: Options) -> Score:
    """Read yes or no and compare it; a text that says neither is wrong."""
    said = first_four(text)
    value = None if record.target is None else float(said == record.target)
    return Score(value=value, extracted=said, no_answer=not said)


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Perception and cognition, then score, accuracies and confusion counts of every subtask."""
    tasks = rates.split_by(scored, lambda s: s.record.group)
    ordered = [task for task in (*PERCEPTION, *COGNITION) if task in tasks]
    ordered += [task for task in tasks if task not in ordered]
    rows = {task: _subtask(task, tasks[task]) for task in ordered}
    return [
        _sum("perception", PERCEPTION, rows),
        _sum("cognition", COGNITION, rows),
        *(metric for task in ordered for metric in rows[task]),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]


def _sum(group: str, names: Sequence[str], rows: dict[str, list[Metric]]) -> Metric:
    """Sum of the subtask scores; None as soon as one is missing, because a sum over fewer is another scale."""
    parts = [rows[name][0] for name in names if name in rows]
    values = [part.value for part in parts if part.value is not None]
    value = sum(values) if len(values) == len(names) else None
    return Metric(name="score", group=group, value=value, num=sum(part.num for part in parts), kind="score")


def _subtask(task: str, scored: Sequence[Scored]) -> list[Metric]:
    """Score, accuracy and accuracy+ of a subtask, then its counts; the two questions of an image are one cluster."""
    answered = [s for s in scored if s.score.value is not None]
    clusters = [_pair(s) for s in answered]
    pairs = {key: pair for key, pair in rates.split_by(answered, _pair).items() if len(pair) == _FULL_PAIR}
    both = [float(all(s.score.value == 1.0 for s in pair)) for pair in pairs.values()]
    acc = intervals.mean([s.score.value or 0.0 for s in answered], clusters) if answered else None
    acc_plus = intervals.mean(both, list(pairs)) if both else None
    total = None if acc is None or acc_plus is None else intervals.weighted_sum([(100.0, acc), (100.0, acc_plus)])
    row = rates.metric("score", total, len(answered), group=task, kind="score")
    if acc is not None and acc_plus is not None:
        row = rates.exactly(row, 100.0 * (acc.value + acc_plus.value))
    return [
        row,
        rates.metric("acc", acc, len(answered), group=task),
        rates.metric("acc_plus", acc_plus, len(both), group=task),
        *_confusion(task, answered),
    ]


def _pair(item: Scored) -> str:
    return str(item.record.meta["pair"])


def _confusion(task: str, answered: Sequence[Scored]) -> list[Metric]:
    """Counts, precision and recall over the answers that say yes or no; positive is yes."""
    num = len(answered)
    cells = {
        name: sum(s.record.target == gold and s.score.extracted == said for s in answered)
        for name, gold, said in (("TP", "yes", "yes"), ("FN", "yes", "no"), ("TN", "no", "no"), ("FP", "no", "yes"))
    }
    counts = [rates.count(name, number, num, group=task) for name, number in cells.items()]
    other = rates.count("other_num", sum(not s.score.extracted for s in answered), num, group=task)
    return [
        *counts,
        other,
        _ratio("precision", cells["TP"], cells["TP"] + cells["FP"], task),
        _ratio("recall", cells["TP"], cells["TP"] + cells["FN"], task),
    ]


def _ratio(name: str, part: int, whole: int, task: str) -> Metric:
    """A share; over nothing it is 0, as in the library the official script calls."""
    if not whole:
        return Metric(name=name, value=0.0, num=0, group=task)
    return rates.mean(name, [1.0] * part + [0.0] * (whole - part), group=task)
