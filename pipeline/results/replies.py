"""The replies of a file, record by record: of a run of ours, of anybody by our ids, or of another tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.types import Record

from ..run.journal import JournalEntry
from .predictions_file import UNANSWERED, entries_of, entry_of, read_predictions
from .result_files import read_result_file
from .result_files.join import join
from .result_files.row import ResultRow


def read_answers(records: Sequence[Record], path: Path) -> tuple[dict[str, JournalEntry], list[str]]:
    """Give every record its reply.

    Args:
        records: of the whole benchmark; which of them a row belongs to depends on all that it could belong to.
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


def _entry(record: Record, row: ResultRow | None) -> JournalEntry:
    if row is None:
        return entry_of(record, None, UNANSWERED)
    return entry_of(record, row.reply, row.error, prompt=row.prompt)
