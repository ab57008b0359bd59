"""The journal of a run: one JSON line per sample as it is answered, so that a killed run continues where it stopped.

A line says which question it answers (image and prompt) and under which run's identity, and only that decides whether
it is used again: neither the file it stands in nor the number of processes matters. A line is one ``write`` to a
file opened for appending; what a kill leaves of a last line is skipped when reading and closed off when appending.
Every process of every session has a file of its own, of a name that no other has (`file_name`): journals of several
machines come together by copying files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

from configs.common.safe_json import parse_json
from configs.common.words import listed
from datasets.registration.formats.files import is_hidden
from datasets.types import Record

from ..runtime.errors import RunError
from ..runtime.files import append, json_line, make_folder, naming_write_errors
from .questions import Question, QuestionKey


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """The answer to one question for one record, or why there is none.

    Attributes:
        run: mark of the run that gave it, see ``pipeline/run/identity.py``.
        id: the record.
        image: name of the image; None for a text-only question.
        question: the benchmark's prompt, resolved.
        prompt: the whole prompt the model saw; "" where there is an error.
        text: the reply; "" where there is an error.
        finished: whether the reply ended by itself, rather than at the token limit.
        num_tokens: of the reply.
        seconds: spent on it: its share of the batch; 0 for a further record with the same question.
        error: why there is no answer; None if there is one.
        margin: smallest gap at any decision of its search; None where there was none.
        close: whether rounding could change the reply, see `collavo.engine.Reply`.
        note: what memory forced that can change last digits; "" for nothing.
        outcome: what came in its place, where that is the model's doing and asking again would not change it: refused,
            truncated or empty; else "".
    """

    run: str
    id: str
    image: str | None
    question: str
    prompt: str = ""
    text: str = ""
    finished: bool = False
    num_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None
    margin: float | None = None
    close: bool = False
    note: str = ""
    outcome: str = ""

    @property
    def settled(self) -> bool:
        """Whether the question need not be asked again."""
        return self.error is None or bool(self.outcome)

    @property
    def key(self) -> QuestionKey:
        """The question it answers."""
        return self.image, self.question

    @property
    def reply(self) -> str | None:
        """What the model said; None where there is no answer."""
        return self.text if self.error is None else None


_TYPES: dict[str, tuple[type, ...]] = {
    "run": (str,),
    "id": (str,),
    "image": (str, type(None)),
    "question": (str,),
    "prompt": (str,),
    "text": (str,),
    "finished": (bool,),
    "num_tokens": (int,),
    "seconds": (int, float),
    "error": (str, type(None)),
    "margin": (int, float, type(None)),
    "close": (bool,),
    "note": (str,),
    "outcome": (str,),
}
_LATER = {"margin", "close", "note", "outcome"}
"""What lines of earlier versions lack."""


def file_name(rank: int, token: str) -> str:
    """Name of a process's journal.

    Args:
        rank: of the process.
        token: of the session, drawn anew for each.
    """
    return f"process-{rank}-{token}.jsonl"


def parse_line(line: bytes) -> JournalEntry | None:
    """Read one line; None if it is torn or not one of ours."""
    try:
        values = parse_json(line)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    values.pop("extracted", None)  # earlier versions noted a first scoring, which nothing read
    if {*values, *_LATER} != {field.name for field in fields(JournalEntry)}:
        return None
    if not all(isinstance(values[name], kind) for name, kind in _TYPES.items() if name in values):
        return None
    return JournalEntry(**values)


def read_folder(folder: Path) -> Iterator[JournalEntry]:
    """Read every whole line of every journal in a folder, in a fixed order; none if the folder does not exist."""
    for file in sorted(file for file in folder.glob("*.jsonl") if not is_hidden(file)):
        for line in file.read_bytes().split(b"\n"):
            entry = parse_line(line)
            if entry is not None:
                yield entry


def usable_answers(entries: Iterable[JournalEntry], accepted: Iterable[str]) -> dict[QuestionKey, JournalEntry]:
    """Answers that need not be given again, by question; errors are left out, so that they are tried again.

    Args:
        entries: of all journals that can be seen, in any order.
        accepted: marks of the runs whose answers count; where several answered a question, the first of these wins.
    """
    rank = {run: index for index, run in enumerate(accepted)}
    answers: dict[QuestionKey, JournalEntry] = {}
    for entry in entries:
        if not entry.settled or entry.run not in rank:
            continue
        held = answers.get(entry.key)
        if held is None or _order(entry, rank) < _order(held, rank):
            answers[entry.key] = entry
    return answers


def _order(entry: JournalEntry, rank: Mapping[str, int]) -> tuple[int, str, float, str]:
    """Which of several answers to a question counts: of the first run, and the line that has the time it took."""
    return rank[entry.run], entry.text, -entry.seconds, entry.id


def answers_by_record(
    records: Sequence[Record], questions: Sequence[Question], answers: Mapping[QuestionKey, JournalEntry]
) -> dict[str, JournalEntry]:
    """Give every record the answer to its question.

    Raises:
        RunError: a record has no answer, or an id stands for two records.
    """
    by_id = {name: answers[question.key] for question in questions if question.key in answers for name in question.ids}
    ids = [record.id for record in records]
    missing = [name for name in ids if name not in by_id]
    if missing:
        raise RunError(
            f"{len(missing)} of {len(ids)} records have no answer, nothing is scored: {listed(missing)}. "
            "Run the same command again to answer them."
        )
    if len(set(ids)) != len(ids) or set(by_id) != set(ids):
        raise RunError(f"{len(ids)} records carry {len(set(ids))} distinct ids; nothing is scored")
    return by_id


class Journal:
    """Appends entries to one file; each process has its own.

    Args:
        file: made if absent, with its folder.

    Raises:
        WriteError: it cannot be.
    """

    def __init__(self, file: Path) -> None:
        make_folder(file.parent)
        self._file = file
        with naming_write_errors(file):
            torn = _ends_torn(file)
            self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if torn:
            append(self._descriptor, file, b"\n")

    def append(self, entry: JournalEntry) -> None:
        """Write one entry as one line; it is safe from a kill of the process once this returns.

        Raises:
            WriteError: the disk is full or gone.
        """
        append(self._descriptor, self._file, json_line(_ordered(asdict(entry))))

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _ordered(values: Mapping[str, object]) -> dict[str, object]:
    """What a reader looks for first stands first in a line."""
    first = ("id", "prompt", "text", "seconds", "error")
    return {name: values[name] for name in (*first, *(name for name in values if name not in first))}


def _ends_torn(file: Path) -> bool:
    """Whether a file's last line was cut off by a kill."""
    if not file.exists() or file.stat().st_size == 0:
        return False
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
