"""Which record a row of another tool's result file answers: found by what the row says, and only without doubt.

A row belongs to a record if nothing that it says contradicts it (the question's text, image, options, ground truth and
list), and if something next to the question's text speaks for it: its id, image, options or ground truth. Of several
such records one must be left. A bare number that is the last part of an id (``5`` of ``v1_5``) speaks for a record
where no other asks the same, or where all numbers of a long file agree with the questions. Ids that mostly contradict
are numbers of the tool's own, and say nothing.

Records that ask the same about the same image (as POPE's three lists do) are one question: a row that names its lists
answers it there, and rows that do not answer it if there are as many of them as records and their replies are the same.
One row that leaves doubt makes the whole file unusable, since a benchmark scored in part, or by another one's replies,
would look like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.common.words import listed
from datasets.types import DataError, Record

from .row import ResultFile, ResultRow, plain, stem

_SHOWN = 3
_LONG = 20
"""Rows whose numbers cannot all agree with the questions by accident."""
_QUESTIONS = ("question", "release_question", "query")
"""Fields of a record that hold what is asked."""


@dataclass(frozen=True, kw_only=True)
class JoinedReplies:
    """A result file by the ids of the benchmark's records.

    Attributes:
        rows: by record id.
        stray: places of rows that no record belongs to.
    """

    rows: Mapping[str, ResultRow]
    stray: Sequence[str]


@dataclass(frozen=True)
class _Known:
    """What is known of a benchmark's records, by what rows may say.

    Attributes:
        ids: id, or the release's own id -> records.
        numbers: last part of an id -> records.
        images: stem of the image -> records.
        questions: plain question -> records.
        groups: all groups.
        asked: record id -> its plain questions.
        options: record id -> letter -> plain text, of those with options.
    """

    ids: Mapping[str, list[Record]]
    numbers: Mapping[str, list[Record]]
    images: Mapping[str, list[Record]]
    questions: Mapping[str, list[Record]]
    groups: frozenset[str]
    asked: Mapping[str, list[str]]
    options: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class _Said:
    """What a row says, in plain form.

    Attributes:
        row: the row.
        asked: its question, or where it has none its prompt; "" where it has neither.
        texts: question, prompt, and the prompt's lines: what may be the record's question.
        image: stem of its image, if that is one of the benchmark's; "" otherwise.
        groups: those of the benchmark's groups that it names.
        options: letter -> text.
        target: the ground truth.
    """

    row: ResultRow
    asked: str
    texts: Sequence[str]
    image: str
    groups: frozenset[str]
    options: Mapping[str, str]
    target: str


@dataclass(frozen=True, kw_only=True)
class _Trust:
    """What a file's names are worth, as its other rows show.

    Attributes:
        ids: whether its ids are those of the records, rather than numbers of the tool's own.
        numbers: whether its bare numbers are the last parts of the records' ids.
    """

    ids: bool
    numbers: bool


@dataclass
class _Findings:
    """What was found row by row.

    Attributes:
        sure: record id -> rows.
        shared: ids of records that ask one question -> rows that do not say which of these they answer.
        stray: rows without a record.
        doubtful: row and why it may belong to several records, or to none though it has the id of one.
    """

    sure: dict[str, list[ResultRow]] = field(default_factory=lambda: defaultdict(list))
    shared: dict[tuple[str, ...], list[ResultRow]] = field(default_factory=lambda: defaultdict(list))
    stray: list[ResultRow] = field(default_factory=list)
    doubtful: list[tuple[ResultRow, str]] = field(default_factory=list)


def join(records: Sequence[Record], file: ResultFile, path: Path) -> JoinedReplies:
    """Find the record of every row.

    Args:
        records: of the benchmark.
        file: the rows.
        path: the file, for messages.

    Raises:
        DataError: a row leaves doubt, two rows answer one record, or no row answers any.
    """
    known, found = _index(records), _Findings()
    rows = [_said(row, known) for row in file.rows]
    trust = _Trust(ids=_named_rightly(rows, known), numbers=_numbered(rows, known))
    for said in rows:
        _place(said, known, trust, found)
    for ids, alike in found.shared.items():
        if len(alike) == len(ids) and len({row.reply for row in alike}) == 1:
            for name, row in zip(ids, alike, strict=True):
                found.sure[name].append(row)
        else:
            found.doubtful += [(row, f"asks what {listed(ids)} ask, and does not say which it is") for row in alike]
    _refuse(found, file, path, records)
    return JoinedReplies(
        rows={name: rows[0] for name, rows in found.sure.items()}, stray=[row.where for row in found.stray]
    )


def _index(records: Iterable[Record]) -> _Known:
    ids, numbers, images, questions = (defaultdict[str, list[Record]](list) for _ in range(4))
    asked: dict[str, list[str]] = {}
    options: dict[str, dict[str, str]] = {}
    groups = set()
    for record in records:
        for name in _own_ids(record):
            ids[name].append(record)
        numbers[record.id.rsplit("/", 1)[-1].rsplit("_", 1)[-1]].append(record)
        if record.image is not None:
            images[stem(record.image.name)].append(record)
        asked[record.id] = [plain(text) for name in _QUESTIONS if (text := record.fields.get(name, "").strip())]
        for text in dict.fromkeys(asked[record.id]):
            questions[text].append(record)
        listing = record.meta.get("options")
        if isinstance(listing, Mapping) and listing:
            options[record.id] = {str(letter): plain(str(text)) for letter, text in listing.items()}
        groups.add(record.group)
    return _Known(ids, numbers, images, questions, frozenset(groups - {""}), asked, options)


def _own_ids(record: Record) -> list[str]:
    return list(dict.fromkeys((record.id, str(record.meta.get("release_id", record.id)))))


def _said(row: ResultRow, known: _Known) -> _Said:
    texts = [plain(text) for text in (row.question, row.prompt, *row.prompt.split("\n")) if text.strip()]
    image = stem(row.image) if row.image else ""
    return _Said(
        row=row,
        asked=texts[0] if texts else "",
        texts=texts,
        image=image if image in known.images else "",
        groups=known.groups & set(row.groups),
        options={letter: plain(text) for letter, text in row.options.items()},
        target=plain(row.target).rstrip("."),
    )


def _numbered(rows: Sequence[_Said], known: _Known) -> bool:
    """Whether the bare numbers of a long file are those of the records, as their questions show."""
    if len(rows) < _LONG or not all(said.asked for said in rows):
        return False
    return all(any(known.asked[r.id] and _agrees(said, r, known) for r in _counted(said, known)) for said in rows)


def _named_rightly(rows: Sequence[_Said], known: _Known) -> bool:
    """Whether most ids that name a record are on rows that agree with it."""
    named = [(said, found) for said in rows if (found := _named(said, known))]
    return 2 * sum(any(_agrees(said, record, known) for record in found) for said, found in named) >= len(named)


def _named(said: _Said, known: _Known) -> list[Record]:
    return _unique(record for name in said.row.ids for record in _by_id(name, known))


def _counted(said: _Said, known: _Known) -> list[Record]:
    return _unique(record for name in said.row.ids for record in known.numbers.get(name, ()))


def _place(said: _Said, known: _Known, trust: _Trust, found: _Findings) -> None:
    """Find the records of a row, and note it where they belong."""
    best = _closest(said, _supported(said, known, trust), known)
    if not best:
        _note_doubt(said, known, found)
    elif len(best) == 1 or (said.groups and _one_question(best, known)):
        for record in best:
            found.sure[record.id].append(said.row)
    elif _one_question(best, known):
        found.shared[tuple(record.id for record in best)].append(said.row)
    else:
        found.doubtful.append((said.row, f"may answer {listed([record.id for record in best])}"))


def _supported(said: _Said, known: _Known, trust: _Trust) -> list[Record]:
    """Records that nothing contradicts and something speaks for: of the row's id, else of its number, else others."""
    named = _named(said, known)
    if agreeing := [record for record in named if _agrees(said, record, known)]:
        return agreeing
    contradicted = any(_is_id(said.row, record) for record in named)
    if contradicted and trust.ids:
        return []
    counted = [record for record in _counted(said, known) if _agrees(said, record, known)]
    if trust.numbers and counted:
        return counted
    trusted = [record for record in counted if _alone(record, known)]
    speaks = _shows if contradicted else _speaks_for
    others = [record for record in _alike(said, known) if speaks(said, record, known)]
    return _unique([*trusted, *(record for record in others if _agrees(said, record, known))])


def _alike(said: _Said, known: _Known) -> list[Record]:
    """Records with the row's image; where it gives none, those with its question."""
    if said.image:
        return known.images[said.image]
    return _unique(record for text in said.texts for record in known.questions.get(text, ()))


def _note_doubt(said: _Said, known: _Known, found: _Findings) -> None:
    """Say of a row without a record whether it contradicts one, might be one, or is a stray."""
    row = said.row
    contradicted = next((record for record in _named(said, known) if _is_id(row, record)), None)
    if contradicted is not None:
        found.doubtful.append((row, f"has the id of {contradicted.id}, but {_differs(said, contradicted, known)}"))
    elif similar := [record.id for record in _alike(said, known) if _agrees(said, record, known)]:
        why = "has the question's text alone, and neither its id, image, options nor ground truth"
        found.doubtful.append((row, f"{why}, to tell that it is {listed(similar)}"))
    else:
        found.stray.append(row)


def _alone(record: Record, known: _Known) -> bool:
    """Whether no other record asks the same."""
    return bool(known.asked[record.id]) and all(len(known.questions[text]) == 1 for text in known.asked[record.id])


def _by_id(name: str, known: _Known) -> list[Record]:
    """Records that a tool means by a name: with that id, or with one that the name ends in."""
    places = [0, *(n + 1 for n, letter in enumerate(name) if letter in "_/")]
    return next((known.ids[name[place:]] for place in places if name[place:] in known.ids), [])


def _is_id(row: ResultRow, record: Record) -> bool:
    """Whether a row names a record by its whole id, rather than by a number that others may have as well."""
    return any(name == own or name.endswith(f"_{own}") for name in row.ids for own in _own_ids(record))


def _unique(records: Iterable[Record]) -> list[Record]:
    return list({record.id: record for record in records}.values())


def _agrees(said: _Said, record: Record, known: _Known) -> bool:
    """Whether nothing that a row says contradicts a record."""
    if said.groups and record.group not in said.groups:
        return False
    if False in (_same_image(said, record), _same_options(said, record, known), _same_target(said, record, known)):
        return False
    asked = known.asked[record.id]
    return not said.asked or not asked or any(_overlap(question, said.asked) for question in asked)


def _overlap(one: str, other: str) -> bool:
    """Whether one text stands in the other, not in the middle of a word."""
    short, long = sorted((one, other), key=len)
    return bool(short) and f" {short} " in f" {long} "


def _shows(said: _Said, record: Record, known: _Known) -> bool:
    """Whether a row has a record's image or options."""
    return True in (_same_image(said, record), _same_options(said, record, known))


def _speaks_for(said: _Said, record: Record, known: _Known) -> bool:
    """Whether something next to the question's text says that a row belongs to a record."""
    return _shows(said, record, known) or _same_target(said, record, known) is True


def _closest(said: _Said, records: Sequence[Record], known: _Known) -> list[Record]:
    """Of records whose questions stand in a row's text, those with the longest: one may be part of another."""
    if not said.texts or not records:
        return list(records)
    whole = [record for record in records if any(text in said.texts for text in known.asked[record.id])]
    longest = {r.id: max((len(text) for text in known.asked[r.id]), default=0) for r in records}
    return whole or [record for record in records if longest[record.id] == max(longest.values())]


def _same_image(said: _Said, record: Record) -> bool | None:
    """Whether images agree; None where a row gives none, or a name that is none of the benchmark's."""
    return None if not said.image or record.image is None else said.image == stem(record.image.name)


def _same_options(said: _Said, record: Record, known: _Known) -> bool | None:
    options = known.options.get(record.id)
    return None if not said.options or options is None else said.options == options


def _same_target(said: _Said, record: Record, known: _Known) -> bool | None:
    """Whether ground truths agree; None where they are of forms that cannot be compared."""
    if not said.target or record.target is None:
        return None
    if not isinstance(record.target, str):
        several = record.target if isinstance(record.target, (list, tuple)) else ()
        return True if said.target in [plain(str(target)).rstrip(".") for target in several] else None
    right, options = plain(record.target).rstrip("."), known.options.get(record.id, {})
    if said.target in (right, options.get(record.target, right).rstrip(".")):
        return True
    forms = ({"yes", "no"}, {letter.casefold() for letter in options})
    return False if any({said.target, right} <= form for form in forms) else None


def _one_question(records: Sequence[Record], known: _Known) -> bool:
    """Whether records ask the same about the same image."""
    return len({(r.image.name if r.image else r.id, *known.asked[r.id]) for r in records}) == 1


def _differs(said: _Said, record: Record, known: _Known) -> str:
    """What of a row contradicts a record whose id it has."""
    if _same_image(said, record) is False:
        return f"another image ({said.row.image})"
    if _same_options(said, record, known) is False:
        return "other options, or the same in another order"
    if _same_target(said, record, known) is False:
        return f"another ground truth ({said.row.target})"
    return "another question, or list"


def _refuse(found: _Findings, file: ResultFile, path: Path, records: Sequence[Record]) -> None:
    """Raise for what cannot be used.

    Raises:
        DataError: see `join`.
    """
    twice = [(name, rows) for name, rows in found.sure.items() if len(rows) > 1]
    if found.doubtful:
        row, why = found.doubtful[0]
        raise DataError(
            f"{row.where}: the row {why}. {path} is read as {file.tool}; {len(found.doubtful)} of its {len(file.rows)} "
            "rows cannot be joined to the benchmark's records without doubt. Is it of the same release?"
        )
    if twice:
        name, rows = twice[0]
        raise DataError(f"{rows[1].where}: a second answer to {name}, after {rows[0].where}; each is answered once")
    if not found.sure:
        some = listed([str(row.ids[0] if row.ids else row.where) for row in file.rows[:_SHOWN]])
        raise DataError(
            f"{path}: read as {file.tool}; none of its {len(file.rows)} rows ({some}) is one of the benchmark's "
            f"records, which are like {listed([record.id for record in records[:_SHOWN]])}"
        )
