"""The replies of a file, record by record: of a run of ours, of anybody by our ids, or of another tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.types import Record

from ..run.journal import Entry
from .predictions_file import entries_of, read_predictions
from .result_files import read_result_file
from .result_files.join import join
from .result_files.row import Row


def read_answers(records: Sequence[Record], path: Path) -> tuple[dict[str, Entry], list[str]]:
    """Give every record its reply.

    Args:
        records: of the whole benchmark; what a row belongs to is told by what others it could belong to.
        path: file or folder of replies.
    Returns: an entry for every record, and what the file calls replies that no record has.

    Raises:
        DataError: the file is unreadable, or its replies cannot be joined to the records without doubt.
    """
    file = read_result_file(path)
    if file is None:
        return entries_of(records, read_predictions(path), path)
    joined = join(records, file, path)
    return {record.id: _entry(record, joined.rows.get(record.id)) for record in records}, list(joined.stray)


def _entry(record: Record, row: Row | None) -> Entry:
    error = "no prediction in the file" if row is None else row.error or "no text in the file"
    reply = None if row is None else row.reply
    return Entry(
        run="",
        id=record.id,
        image=None if record.image is None else record.image.name,
        question=record.fields.get("question", ""),
        prompt="" if row is None else row.prompt,
        text=reply or "",
        finished=True,
        error=error if reply is None else None,
    )
