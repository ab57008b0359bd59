"""Answers from a file: those of a finished run of ours, or of anybody, by the ids of the benchmark's records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from configs.common.safe_json import parse_json, parse_json_lines
from configs.common.words import did_you_mean, listed, shown
from datasets.types import DataError, Record

from ..run.journal import JournalEntry
from .reply_field import NAMES, candidates, no_replies, questions_of, reply_of
from .report import PREDICTIONS
from .result_files import mme_tool

T = TypeVar("T")
IDS = ("id", "question_id", "questionId", "pid", "index")
"""Names under which a file may give the id, in the order in which they are looked for."""
SCORES = "score"
"""Folder next to the predictions for new scores, if no other is named; a judge's go into one of its own in it."""
UNANSWERED = "no prediction in the file"
"""The error of a record that a file does not name."""


@dataclass(frozen=True, kw_only=True)
class FileAnswer:
    """An answer of a file.

    Attributes:
        fields: that may hold the model's reply, see ``pipeline/results/reply_field.py``; None where one has none.
        where: its place, for messages.
        asked: what the file says that was asked.
        prompt: that was asked; "" if the file does not say.
        finished: whether the text ended by itself, as far as the file says.
        error: why there is no text.
        seconds: that the reply took; 0 if the file does not say.
    """

    fields: Mapping[str, str | None]
    where: str
    asked: Sequence[str] = ()
    prompt: str = ""
    finished: bool = True
    error: str | None = None
    seconds: float = 0.0


def prediction_files(path: Path, dataset: str | None) -> list[Path]:
    """The files of answers that a path means.

    Args:
        path: a file; the folder of a benchmark's results, or of MME's tool; or a run's whole ``SAVE_DIR``, with a
            folder per benchmark.
        dataset: the only benchmark of a run that is meant; None for all.

    Raises:
        DataError: there is no such file or folder, or no answers in it.
    """
    if path.is_file():
        return [path]
    where = shown(str(path))
    if not path.exists():
        hint = did_you_mean(path.name, _names_in(path.parent), otherwise="")
        raise DataError(f"{where}: no such file{hint}")
    if not path.is_dir():
        raise DataError(f"{where}: is neither a file nor a folder")
    if (path / PREDICTIONS).is_file():
        return [path / PREDICTIONS]
    if mme_tool.read(path) is not None:
        return [path]
    found = [file for file in sorted(path.glob(f"*/{PREDICTIONS}")) if file.parent.name != SCORES]
    named = [file for file in found if dataset in (None, file.parent.name)]
    if not named:
        if found:
            has = listed([file.parent.name for file in found])
            raise DataError(f"{where}: no answers to {shown(dataset or '')}; it has: {has}")
        raise DataError(f"{where}: no {PREDICTIONS} in this folder, nor in the benchmarks' folders below it")
    return named


def _names_in(folder: Path) -> list[str]:
    try:
        return [item.name for item in folder.iterdir()]
    except OSError:
        return []


def read_predictions(path: Path) -> dict[str, FileAnswer]:
    """Read answers by id.

    Read are ``predictions.jsonl`` of a run; JSON lines or a JSON list of objects with an id (`IDS`) and a text under
    one of `reply_field.NAMES`; and a JSON object from ids to texts, or to objects with a text.

    Raises:
        DataError: the file is unreadable or of another form, or gives two answers to an id; with the place.
    """
    found: dict[str, FileAnswer] = {}
    for where, key, value in _items(path):
        if key in found:
            raise DataError(f"{where}: a second answer to {key}; each id is answered once")
        found[key] = _given(value, where)
    if not found:
        raise DataError(f"{path}: holds no answers")
    return found


def _items(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Place, id and value of every answer."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    try:
        content = parse_json(text)
    except ValueError as error:
        if path.suffix == ".json" and "\n{" not in text.strip():
            raise DataError(f"{path}: not valid JSON: {error}") from None
        try:
            yield from _of_list(parse_json_lines(text, path))
        except ValueError as broken:
            raise DataError(broken) from None
        return
    if isinstance(content, dict) and not (set(content) & set(IDS) and set(content) & set(NAMES)):
        yield from ((f"{path}, {key}", str(key), value) for key, value in content.items())
    else:
        items = content if isinstance(content, list) else [content]
        yield from _of_list((f"{path}, entry {n}", item) for n, item in enumerate(items, start=1))


def _of_list(items: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for where, item in items:
        key = next((item[name] for name in IDS if name in item), None) if isinstance(item, dict) else None
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise DataError(f"{where}: expected an object with an id under one of {', '.join(IDS)}")
        yield where, str(key), item


def _given(value: Any, where: str) -> FileAnswer:
    if not isinstance(value, dict):
        value = {"text": value}
    fields = candidates(value)
    if not fields:
        raise DataError(f"{where}: expected the model's text, or an object with it under one of {', '.join(NAMES)}")
    prompt, error, seconds = value.get("prompt"), value.get("error"), value.get("seconds")
    return FileAnswer(
        fields=fields,
        where=where,
        asked=questions_of(value),
        prompt=prompt if isinstance(prompt, str) else "",
        finished=value.get("finished") is not False,
        error=error if isinstance(error, str) else None,
        seconds=float(seconds) if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else 0.0,
    )


def entries_of(
    records: Sequence[Record], given: Mapping[str, FileAnswer], path: Path
) -> tuple[dict[str, JournalEntry], list[str]]:
    """Give every record its answer.

    Args:
        records: of the benchmark.
        given: see `read_predictions`.
        path: their file, for messages.
    Returns: an entry for every record, and the ids of answers that no record has.

    Raises:
        DataError: no answer belongs to any record, or nothing tells which field holds the replies.
    """
    stray = unknown_ids(records, given)
    if len(stray) == len(given):
        some = listed([record.id for record in records[:3]])
        raise DataError(
            f"{path}: none of its ids ({listed(stray[:3])}) is one of the benchmark's, which are like {some}"
        )
    pairs = list(by_record(records, given))
    dropped = no_replies(((answer.fields, answer.asked, record) for record, answer in pairs if answer), path)
    return {record.id: _entry(record, answer, dropped) for record, answer in pairs}, stray


def _entry(record: Record, answer: FileAnswer | None, dropped: set[str]) -> JournalEntry:
    if answer is None:
        return entry_of(record, None, UNANSWERED)
    text = reply_of(answer.fields, dropped, answer.where)
    return entry_of(record, text, answer.error, prompt=answer.prompt, finished=answer.finished, seconds=answer.seconds)


def entry_of(
    record: Record,
    text: str | None,
    error: str | None,
    *,
    prompt: str = "",
    finished: bool = True,
    seconds: float = 0.0,
) -> JournalEntry:
    """A record's reply in a file, as a run's journal has it.

    Args:
        record: that was asked.
        text: the reply; None where there is none.
        error: why there is none, as far as the file says.
        prompt: that was asked; "" if the file does not say.
        finished: whether the text ended by itself.
        seconds: that the reply took; 0 if the file does not say.
    """
    return JournalEntry(
        run="",
        id=record.id,
        image=None if record.image is None else record.image.name,
        question=record.fields.get("question", ""),
        prompt=prompt,
        text=text or "",
        finished=finished,
        seconds=seconds,
        error=(error or "no text in the file") if text is None else None,
    )


def by_record(records: Sequence[Record], predictions: Mapping[str, T]) -> Iterator[tuple[Record, T | None]]:
    """Pair every record with its answer, in the order of the records.

    Args:
        records: the benchmark.
        predictions: id -> answer. Where a release repeats an id (``meta["release_id"]``), the answer serves all of its
            records that have none of their own.
    """
    for record in records:
        yield record, predictions.get(record.id, predictions.get(str(record.meta.get("release_id", record.id))))


def unknown_ids(records: Sequence[Record], predictions: Iterable[str]) -> list[str]:
    """Ids of answers that no record has, in the order of the answers."""
    known = {record.id for record in records} | {str(r.meta["release_id"]) for r in records if "release_id" in r.meta}
    return [key for key in predictions if key not in known]
