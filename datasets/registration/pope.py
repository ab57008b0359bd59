"""POPE: ``coco_pope_{random,popular,adversarial}.json``, one JSON object a line, images of COCO val2014.

Earlier users of this code have all three lists merged in one file, ``POPE/new_pope_test.json`` (a JSON list with
``image``, ``text``, ``question_id``, ``category``; its labels stand in the three lists next to it, or as ``label`` in
the record). It is read where the official lists are not all there to be read, or where the declaration asks for it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..roots import find
from ..types import BadRecord, Record
from .formats import jsonl
from .formats.files import (
    MalformedError,
    brief,
    build_records,
    expect,
    image_file,
    listed,
    place,
    read_json,
    take,
    take_id,
    take_optional,
)

_LABELS = ("yes", "no")
_Labels = Mapping[tuple[str, str, str], deque[str]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where POPE lies.

    Attributes:
        folders: where the lists may be; the first folder that has one counts.
        file: name of a list; ``{split}`` stands for its name.
        merged: the merged file, looked for in the same folders.
        splits: the lists to read.
        images: folder of the images; COCO's own, outside POPE's.
        source: official lists, merged file, or whichever is there (auto prefers the lists).
    """

    folders: tuple[str, ...] = ("POPE", "POPE/output/coco", "POPE/coco")
    file: str = "coco_pope_{split}.json"
    merged: str = "new_pope_test.json"
    splits: tuple[str, ...] = ("random", "popular", "adversarial")
    images: str = "coco2014/val2014"
    source: Literal["auto", "official", "merged"] = "auto"


FIELDS = ("question",)
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    merged = [f"{folder}/{options.merged}" for folder in options.folders]
    if options.source == "merged":
        return [tuple(merged)]
    instead = merged if options.source == "auto" else []
    names = [options.file.format(split=split) for split in options.splits]
    return [(*(f"{folder}/{name}" for folder in options.folders), *instead) for name in names]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(options.images,)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions, list by list, in the order of the files.

    Raises:
        DataError: neither all lists nor the merged file is there; the message names every place.
    """
    images = place(roots, options.images)
    merged = _existing(roots, options, options.merged)
    lists = {split: _existing(roots, options, options.file.format(split=split)) for split in options.splits}
    use_merged = options.source == "merged" or (options.source == "auto" and merged and not all(lists.values()))
    if use_merged:
        path = merged or find(roots, *(f"{folder}/{options.merged}" for folder in options.folders))
        labels = _labels({split: lists[split] for split in options.splits})
        items = _merged_items(path, options.splits)
        return build_records(items, lambda item: _merged_record(item, images, labels))
    return build_records(_list_items(roots, options), lambda item: _record(*item, images))


def _existing(roots: Sequence[Path], options: Options, name: str) -> Path | None:
    return next((p for folder in options.folders for root in roots if (p := root / folder / name).is_file()), None)


def _list_items(roots: Sequence[Path], options: Options) -> Iterator[tuple[str, tuple[str, Any] | MalformedError]]:
    """Place, and split with value, of every line of every list; a missing list fails before anything is read."""
    paths = [
        find(roots, *(f"{folder}/{options.file.format(split=split)}" for folder in options.folders))
        for split in options.splits
    ]
    for split, path in zip(options.splits, paths, strict=True):
        for where, item in jsonl.values(path):
            yield where, item if isinstance(item, MalformedError) else (split, item)


def _record(split: str, item: Any, images: Path) -> Record:
    """One line of a list.

    Raises:
        MalformedError: it is no such line.
    """
    label = _label(take(item, "label", str))
    return _build(split, take_id(item, "question_id"), take(item, "image", str), take(item, "text", str), label, images)


def _label(text: str) -> str:
    if text not in _LABELS:
        raise MalformedError(f"'label' should be yes or no, got {brief(text)}")
    return text


def _build(split: str, question_id: str, image: str, question: str, label: str, images: Path) -> Record:
    """A record.

    Raises:
        MalformedError: the question or the image's name is empty, or the name leads out of its folder.
    """
    if not question.strip():
        raise MalformedError("'text' is empty")
    return Record(
        id=f"{split}/{question_id}",
        image=image_file(images, image),
        fields={"question": question},
        target=label,
        group=split,
    )


def _merged_items(path: Path, splits: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Entries of the merged file that belong to the asked splits, or to none."""
    for number, item in enumerate(expect(read_json(path), list, path)):
        if not isinstance(item, dict) or item.get("category") in splits or not isinstance(item.get("category"), str):
            yield f"{path}, entry {number}", item


def _labels(lists: Mapping[str, Path | None]) -> _Labels:
    """Labels by split, image and question; one that is asked repeatedly has them in the order of the list."""
    labels: dict[tuple[str, str, str], deque[str]] = defaultdict(deque)
    for split, path in lists.items():
        for _, item in jsonl.values(path) if path else ():
            try:
                key = split, take(item, "image", str), _bare(take(item, "text", str))
                labels[key].append(_label(take(item, "label", str)))
            except MalformedError:
                continue  # the merged entry that asks for this label then says that it is missing
    return labels


def _merged_record(item: Any, images: Path, labels: _Labels) -> Record:
    """One entry of the merged file; its question may already carry the instruction, which is not asked twice.

    Raises:
        MalformedError: it is no such entry, or its label is nowhere.
    """
    split, image, question = take(item, "category", str), take(item, "image", str), _bare(take(item, "text", str))
    label = take_optional(item, "label", str)
    if label is None:
        waiting = labels.get((split, image, question))
        if not waiting:
            raise MalformedError(f"has no 'label', and no list for '{split}' has this question about {listed([image])}")
        label = waiting.popleft()
    return _build(split, take_id(item, "question_id"), image, question, _label(label), images)


def _bare(question: str) -> str:
    """The question without an instruction line."""
    return question.strip().split("\n", 1)[0].strip()
