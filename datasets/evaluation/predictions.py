"""Join answers to records by id, whatever order they come in and however many processes wrote them.

A record without an answer is kept, without a value: some official rules count it as wrong, others leave it out, and the
scorers know which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..types import Record, Score, Scored

T = TypeVar("T")
Outcome = Literal["scored", "unscored", "withheld", "error"]
"""What became of a record: every one is exactly one of these, see `outcome`."""


@dataclass(frozen=True, kw_only=True)
class Unanswered(Score):
    """The score of a record without a reply (an unreadable image, no prediction in a file)."""

    value: None = None
    extracted: str = ""
    explanation: str = "no prediction"


def outcome(scored: Scored) -> Outcome:
    """What became of a record, in the one sense of all results, tables and messages.

    Returns: ``scored``: it has a credit, also 0 for a reply that cannot be read (``no_answer``); ``unscored``: it has a
        reply and a target, but nothing decided (a judge's verdict is missing or unreadable, or no judge was asked);
        ``withheld``: the release does not tell its target; ``error``: it has no reply.
    """
    if isinstance(scored.score, Unanswered):
        return "error"
    if scored.score.value is not None:
        return "scored"
    return "withheld" if scored.record.target is None else "unscored"


def join(records: Sequence[Record], predictions: Mapping[str, T]) -> Iterator[tuple[Record, T | None]]:
    """Pair every record with its answer, in the order of the records.

    Args:
        records: the benchmark.
        predictions: id -> answer. Where a release repeats an id (``meta["release_id"]``), the answer serves all of its
            records that have none of their own.
    """
    for record in records:
        yield record, predictions.get(record.id, predictions.get(str(record.meta.get("release_id", record.id))))


def unknown(records: Sequence[Record], predictions: Iterable[str]) -> list[str]:
    """Ids of answers that no record has, in the order of the answers."""
    known = {record.id for record in records} | {str(r.meta["release_id"]) for r in records if "release_id" in r.meta}
    return [key for key in predictions if key not in known]


def unanswered(record: Record) -> Scored:
    """What the aggregation of a scorer receives for a record without an answer."""
    return Scored(record=record, text="", score=Unanswered())
