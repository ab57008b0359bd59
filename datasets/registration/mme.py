"""MME: one folder per subtask, one text file per image with two lines ``question<TAB>Yes|No``.

Five subtasks keep ``images/`` and ``questions_answers_YN/`` apart, the others have both side by side. The evaluation
tool's lists (``<subtask>.txt`` with ``image<TAB>question<TAB>answer``) are read where there are no folders: they name
the images without holding them. Other folders and files are none of our business; a missing subtask is reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.mme import COGNITION, PERCEPTION
from ..roots import find
from ..types import BadRecord, DataError, ImageFile, ImageSource, Record
from .formats.files import MalformedError, MissingImage, brief, build_records, check_text, decode_text, is_hidden

_REQUEST = "Please answer yes or no."
_SUFFIXES = (".jpg", ".png", ".jpeg")
_QUESTIONS_PER_IMAGE = 2
_LINE_END = re.compile("\r\n|\r|\n")

Line = tuple[str, ImageSource, int, str]
"""Subtask, image, 0 or 1 for the first or second question, the text of the line."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where MME lies.

    Attributes:
        root: its folder.
    """

    root: str = "MME_Benchmark_release_version"


FIELDS = ("question", "release_question")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(options.root,)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the 14 subtasks, perception first.

    Raises:
        DataError: the folder is missing or holds no subtask.
    """
    root = find(roots, options.root)
    # Some archives hold the folder once more inside itself.
    root = root / options.root if (root / options.root).is_dir() else root
    names = (*PERCEPTION, *COGNITION)
    folders = any((root / name).is_dir() for name in names)
    tasks = [root / name if folders else root / f"{name}.txt" for name in names]
    if not any(task.exists() for task in tasks):
        raise DataError(f"{root}: expected a folder for each of {', '.join(names)}; found none of them")
    return _collect(tasks)


def _collect(tasks: Sequence[Path]) -> Iterator[Record | BadRecord]:
    good: list[tuple[str, Line]] = []
    for item in (item for task in tasks for item in _lines_of(task)):
        if isinstance(item, BadRecord):
            yield item
        else:
            good.append(item)
    yield from build_records(good, _record)


def _record(line: Line) -> Record:
    task, image, number, text = line
    check_text(text, "line")
    question, tab, label = text.rpartition("\t")
    if not tab or label.strip().lower() not in ("yes", "no"):  # the authors' tool does not tell the cases apart either
        raise MalformedError(f"expected 'question<TAB>Yes' or 'question<TAB>No', got {brief(text)}")
    question = question.strip()
    return Record(
        id=f"{image.name}/{number}",
        image=image,
        fields={"question": question.removesuffix(_REQUEST).rstrip(), "release_question": question},
        target=label.strip().lower(),
        group=task,
        meta={"pair": image.name},
    )


def _lines_of(task: Path) -> Iterator[tuple[str, Line] | BadRecord]:
    if not task.exists():
        yield BadRecord(where=str(task), reason="this subtask is missing")
    elif task.is_dir():
        yield from _folder(task)
    else:
        yield from _list(task)


def _folder(task: Path) -> Iterator[tuple[str, Line] | BadRecord]:
    """Lines of a subtask as the release has it."""
    images = task / "images" if (task / "images").is_dir() else task
    questions = task / "questions_answers_YN" if (task / "questions_answers_YN").is_dir() else task
    found = {path.stem: path for path in _files(images) if path.suffix.lower() in _SUFFIXES}
    for path in (path for path in _files(questions) if path.suffix.lower() == ".txt"):
        file = found.get(path.stem)
        try:
            lines = _lines(path)
        except MalformedError as error:
            yield BadRecord(where=str(path), reason=str(error))
            continue
        if file is None and not any("\t" in line for line in lines):
            continue  # a text that somebody left there, not questions
        if file is None:
            yield BadRecord(where=str(path), reason=f"no image {path.stem}.jpg or .png in {images}")
        elif len(lines) != _QUESTIONS_PER_IMAGE:
            yield BadRecord(where=str(path), reason=f"expected two lines, got {len(lines)}")
        else:
            source = ImageFile(file, f"{task.name}/{file.name}")
            yield from ((f"{path}, line {n + 1}", (task.name, source, n, text)) for n, text in enumerate(lines))


def _files(folder: Path) -> list[Path]:
    """What lies in a folder, without what systems leave there.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def _list(path: Path) -> Iterator[tuple[str, Line] | BadRecord]:
    """Lines of a subtask as the evaluation tool lists them."""
    seen: Counter[str] = Counter()
    try:
        lines = _lines(path)
    except MalformedError as error:
        yield BadRecord(where=str(path), reason=str(error))
        return
    for number, text in enumerate(lines, start=1):
        name, _, rest = text.partition("\t")
        source = MissingImage(f"{path.stem}/{name}", f"{path} lists {name}, but the images are not there")
        yield f"{path}, line {number}", (path.stem, source, seen[name], rest)
        seen[name] += 1


def _lines(path: Path) -> list[str]:
    """The lines of a file that are not blank, with any line end.

    Raises:
        MalformedError: the file cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise MalformedError("is no file, but a device or a pipe")
    try:
        text = decode_text(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedError(f"cannot be read: {error}") from None
    return [line for line in _LINE_END.split(text) if line.strip()]
