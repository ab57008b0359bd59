"""ScienceQA: ``problems.json``, ``pid_splits.json`` and ``images/<split>/<id>/image.png``."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, DataError, Record
from .formats.files import (
    MalformedError,
    as_id,
    brief,
    build_records,
    expect,
    image_file,
    listed,
    place,
    read_json,
    take,
    take_optional,
)

_LETTERS = "ABCDE"
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
_LOWER_GRADES = frozenset(f"grade{number}" for number in range(1, 7))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where ScienceQA lies and which questions count.

    Attributes:
        root: its folder.
        problems: the questions.
        splits: the list of ids of each split.
        split: the split to read.
        images: folder of the images, in ``root``.
        image_only: leave out the questions without an image (SQA-IMG).
    """

    root: str = "ScienceQA"
    problems: str = "problems.json"
    splits: str = "pid_splits.json"
    split: str = "test"
    images: str = "images"
    image_only: bool = True


FIELDS = ("question", "hint", "context", "options")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [
        (f"{options.root}/{file}", f"{options.root}/data/scienceqa/{file}")
        for file in (options.problems, options.splits)
    ]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(f"{options.root}/{options.images}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read one split in the order of its list.

    Raises:
        DataError: a file is missing or not JSON, or the split does not exist.
    """
    path = _find(roots, options.root, options.problems)
    problems = expect(read_json(path), dict, path)
    splits_path = _find(roots, options.root, options.splits)
    splits = expect(read_json(splits_path), dict, splits_path)
    if options.split not in splits:
        raise DataError(f"{splits_path}: no split '{options.split}'; it has: {listed(splits)}")
    images = place(roots, f"{options.root}/{options.images}")
    items = (
        (f"{path}, problem {brief(key)}", (str(key), problems.get(str(key))))
        for key in map(_key, expect(splits[options.split], list, splits_path, options.split))
        if not options.image_only or _has_image(problems.get(str(key)))
    )
    return build_records(items, lambda pair: _record(pair[0], pair[1], images))


def _find(roots: Sequence[Path], root: str, file: str) -> Path:
    return find(roots, f"{root}/{file}", f"{root}/data/scienceqa/{file}")


def _key(item: Any) -> Any:
    """A problem's id, which some lists hold as a number."""
    known = as_id(item)
    return item if known is None else known


def _has_image(problem: Any) -> bool:
    """False only for a well-formed problem without image, so that a broken one is still reported."""
    return not isinstance(problem, Mapping) or bool(problem.get("image"))


def _record(key: str, problem: Any, images: Path) -> Record:
    if problem is None:
        raise MalformedError("the split names it, but there is no such problem")
    choices = take(problem, "choices", list)
    if not 2 <= len(choices) <= len(_LETTERS):
        raise MalformedError(f"expected 2 to {len(_LETTERS)} choices, got {len(choices)}")
    options = {letter: str(choice) for letter, choice in zip(_LETTERS, choices, strict=False)}
    answer = take_optional(problem, "answer", int)
    if answer is not None and not 0 <= answer < len(choices):
        raise MalformedError(f"'answer' should be an index into {len(choices)} choices, got {brief(answer)}")
    hint = (take_optional(problem, "hint", str) or "").strip()
    file_name = take_optional(problem, "image", str)
    image = f"{take_optional(problem, 'split', str) or 'test'}/{key}/{file_name}" if file_name else None
    return Record(
        id=key,
        image=image_file(images, image) if image else None,
        fields={
            "question": take(problem, "question", str),
            "hint": hint,
            "context": f"Context: {hint}\n" if hint else "",
            "options": "\n".join(f"{letter}. {choice}" for letter, choice in options.items()),
        },
        target=None if answer is None else _LETTERS[answer],
        meta={"options": options, **_meta(problem, hint)},
    )


def _meta(problem: Mapping[str, Any], hint: str) -> dict[str, Any]:
    """The groups of the paper's table; a cut-down release may lack subject and grade."""
    context = [name for name, there in (("TXT", bool(hint)), ("IMG", bool(problem.get("image")))) if there]
    grade = str(problem.get("grade") or "")
    return {
        "subject": [_SUBJECTS[s] for s in [str(problem.get("subject"))] if s in _SUBJECTS],
        "context": context or ["NO"],
        "grade": [("G1-6" if grade in _LOWER_GRADES else "G7-12")] if grade.startswith("grade") else [],
    }
