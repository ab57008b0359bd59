"""TextVQA: ``TextVQA_0.5.1_val.json``, OCR tokens in a file of their own, ``train_images/<image_id>.jpg``.

OCR tokens come from the release's Rosetta file or from LLaVA's list of prompts; both hold the same tokens. Without
either, records have no ``ocr`` field: answers can be scored, and a prompt that names ``{ocr}`` says that it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, DataError, Record
from .files import (
    MalformedError,
    build_records,
    expect,
    image_file,
    place,
    read_json,
    read_json_lines,
    take,
    take_id,
    take_optional,
)

_OCR_LINE = "Reference OCR token: "
_NUM_ANSWERS = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where TextVQA lies.

    Attributes:
        root: its folder.
        file: questions and answers.
        ocr: files that may hold the OCR tokens, the first one found counts.
        images: folder of the pictures, in ``root``; those of val are among those of train.
    """

    root: str = "TextVQA"
    file: str = "TextVQA_0.5.1_val.json"
    ocr: tuple[str, ...] = (
        "TextVQA_Rosetta_OCR_v0.2_val.json",
        "llava_textvqa_val_v051_ocr.json",
        "llava_textvqa_val_v051_ocr.jsonl",
    )
    images: str = "train_images"


FIELDS = ("question", "ocr")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(f"{options.root}/{options.file}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions in the order of the file."""
    path = find(roots, f"{options.root}/{options.file}")
    questions = expect(expect(read_json(path), dict, path).get("data"), list, path, "data")
    images = place(roots, f"{options.root}/{options.images}")
    tokens = _tokens(roots, options)
    items = ((f"{path}, data[{index}]", item) for index, item in enumerate(questions))
    places = " or ".join(f"{options.root}/{name}" for name in options.ocr)
    absent = {} if tokens else {"absent": {"ocr": f"comes from a file that is not there: {places}"}}
    return build_records(items, lambda item: _record(item, images, tokens, absent))


def _record(
    item: Any, images: Path, tokens: Callable[[str, str], str | None] | None, meta: Mapping[str, Any]
) -> Record:
    question, image = take(item, "question", str), take(item, "image_id", str)
    fields = {"question": question[:1].upper() + question[1:]}
    ocr = tokens(image, question) if tokens else None
    if tokens and ocr is None:
        raise MalformedError(f"the file of OCR tokens has no image {image} with this question")
    if ocr is not None:
        fields["ocr"] = ocr
    answers = take_optional(item, "answers", list)
    if answers is not None and len(answers) != _NUM_ANSWERS:
        raise MalformedError(f"expected {_NUM_ANSWERS} answers, got {answers!r}")
    return Record(
        id=take_id(item, "question_id"),
        image=image_file(images, f"{image}.jpg"),
        fields=fields,
        target=None if answers is None else [str(answer) for answer in answers],
        meta=meta,
    )


def _tokens(roots: Sequence[Path], options: Options) -> Callable[[str, str], str | None] | None:
    """A function from image id and question to its tokens, joined as prompts have them; None if there is no file."""
    path = next((p for name in options.ocr for root in roots if (p := root / options.root / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".jsonl":
        return _from_prompts([item for _, item in read_json_lines(path)], path)
    content = read_json(path)
    if isinstance(content, list):
        return _from_prompts(content, path)
    by_image: dict[str, str] = {}
    for item in expect(expect(content, dict, path).get("data"), list, path, "data"):
        if isinstance(item, dict) and isinstance(item.get("ocr_tokens"), list):
            by_image[str(item.get("image_id"))] = ", ".join(map(str, item["ocr_tokens"]))
    return lambda image, question: by_image.get(image)


def _from_prompts(prompts: Sequence[Any], path: Path) -> Callable[[str, str], str | None]:
    """Tokens from LLaVA's prompts, whose id is that of the image: image and question together are the key."""
    by_question: dict[tuple[str, str], str] = {}
    for number, item in enumerate(prompts):
        lines = str(item.get("text", "")).split("\n") if isinstance(item, dict) else []
        line = next((line for line in lines if line.startswith(_OCR_LINE.strip())), None)
        if line is None:
            raise DataError(f"{path}, entry {number}: no line that begins with '{_OCR_LINE.strip()}'")
        by_question[str(item.get("question_id")), lines[0].strip().lower()] = line.removeprefix(_OCR_LINE)
    return lambda image, question: by_question.get((image, question.strip().lower()))
