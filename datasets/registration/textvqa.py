"""TextVQA: ``TextVQA_0.5.1_val.json``, OCR tokens in a file of their own, ``train_images/<image_id>.jpg``.

OCR tokens come from the release's Rosetta file or from LLaVA's list of prompts; both hold the same tokens. Without
either, records have no ``ocr`` field: answers can be scored, and a prompt that names ``{ocr}`` says that it is missing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
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
        images: folder of the images, in ``root``; those of val are among those of train.
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


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    tokens = [tuple(f"{options.root}/{name}" for name in options.ocr)] if "ocr" in fields else []
    return [*tokens, (f"{options.root}/{options.images}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions in the order of the file."""
    path = find(roots, f"{options.root}/{options.file}")
    questions = expect(expect(read_json(path), dict, path).get("data"), list, path, "data")
    images = place(roots, f"{options.root}/{options.images}")
    tokens = _tokens(roots, options)
    items = ((f"{path}, data[{index}]", item) for index, item in enumerate(questions))
    places = " or ".join(f"{options.root}/{name}" for name in options.ocr)
    absent = {} if tokens is not None else {"absent": {"ocr": f"comes from a file that is not there: {places}"}}
    return build_records(items, lambda item: _record(item, images, tokens, absent))


def _record(item: Any, images: Path, tokens: _Tokens | None, meta: Mapping[str, Any]) -> Record:
    question, image = take(item, "question", str), take_id(item, "image_id")
    fields = {"question": question[:1].upper() + question[1:]}
    if tokens is not None:
        fields["ocr"] = tokens.of(image, question)
    answers = take_optional(item, "answers", list)
    if answers is not None and len(answers) != _NUM_ANSWERS:
        raise MalformedError(f"expected {_NUM_ANSWERS} answers, got {brief(answers)}")
    return Record(
        id=take_id(item, "question_id"),
        image=image_file(images, f"{image}.jpg"),
        fields=fields,
        target=None if answers is None else [str(answer) for answer in answers],
        meta=meta,
    )


class _Tokens:
    """OCR tokens, joined as prompts have them.

    Args:
        by_image: by image; or None.
        by_question: by image and question.
        corrupt: what is wrong with the first of the entries that could not be read; "" where all could.
    """

    def __init__(
        self, by_image: Mapping[str, str] | None, by_question: Mapping[tuple[str, str], str], corrupt: str
    ) -> None:
        self._by_image, self._by_question, self._corrupt = by_image, by_question, corrupt

    def of(self, image: str, question: str) -> str:
        """Those of an image, as a question is asked about it.

        Raises:
            MalformedError: there are none.
        """
        key = image, question.strip().lower()
        found = self._by_question.get(key) if self._by_image is None else self._by_image.get(image)
        if found is None:
            also = f"; what cannot be read in it: {self._corrupt}" if self._corrupt else ""
            raise MalformedError(f"the file of OCR tokens has no image {listed([image])} with this question{also}")
        return found


def _tokens(roots: Sequence[Path], options: Options) -> _Tokens | None:
    """The tokens of the first file that is there; None if none is."""
    path = next((p for name in options.ocr for root in roots if (p := root / options.root / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".jsonl":
        return _from_prompts(read_json_lines(path), path)
    content = read_json(path)
    if isinstance(content, list):
        return _from_prompts(((f"{path}, entry {number}", item) for number, item in enumerate(content)), path)
    by_image: dict[str, str] = {}
    for item in expect(expect(content, dict, path).get("data"), list, path, "data"):
        if isinstance(item, dict) and isinstance(item.get("ocr_tokens"), list):
            by_image[as_id(item.get("image_id")) or ""] = ", ".join(map(str, item["ocr_tokens"]))
    return _Tokens(by_image, {}, "")


def _from_prompts(prompts: Iterable[tuple[str, Any]], path: Path) -> _Tokens:
    """Tokens from LLaVA's prompts, whose id is that of the image: image and question together are the key.

    Raises:
        DataError: no entry has any.
    """
    by_question: dict[tuple[str, str], str] = {}
    corrupt = ""
    for where, item in prompts:
        lines = str(item.get("text", "")).split("\n") if isinstance(item, dict) else []
        line = next((line for line in lines if line.startswith(_OCR_LINE.strip())), None)
        if line is None:
            why = item if isinstance(item, MalformedError) else f"no line that begins with '{_OCR_LINE.strip()}'"
            corrupt = corrupt or f"{where}: {why}"
        else:
            by_question[as_id(item.get("question_id")) or "", lines[0].strip().lower()] = line.removeprefix(_OCR_LINE)
    if not by_question:
        raise DataError(f"{path}: has no OCR tokens. {corrupt or 'It is empty'}")
    return _Tokens(None, by_question, corrupt)
