"""lmms-eval's samples: JSON lines with ``doc_id``, ``target``, ``filtered_resps`` and, where it differs, ``resps``.

``doc_id`` is the position in a dataset of the tool's own and says nothing here. What does is in ``doc`` (the dataset's
row, written by versions before 0.6), in the prompt (``input``), and in the entries of metrics that carry an id.
Source: ``lmms_eval/evaluator.py`` and ``lmms_eval/loggers/evaluation_tracker.py``.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.types import DataError

from .lines import begins_with, objects
from .row import ResultFile, ResultRow, is_image, texts

TOOL = "lmms-eval's samples"
_REPLIES = ("filtered_resps", "resps")
_IDS = ("question_id", "questionId", "pid", "id", "index")
_IMAGES = ("image_id", "imageId", "image_source", "image_path", "img_path", "data_id", "image")
_PARTS = ("category", "subcategory", "set_id", "figure_id", "question_id")
"""Of which HallusionBench's ids are made."""
_ABSENT = ("", "nan", "N/A")
"""What stands for an option that is not there."""


def read(path: Path) -> ResultFile | None:
    """Read a file; None for one whose first line lacks the tool's keys.

    Raises:
        DataError: a line is malformed, or holds several different replies to one question.
    """
    if not begins_with(path, ("doc_id",), _REPLIES):
        return None
    return ResultFile(tool=TOOL, rows=[_row(where, item) for where, item in objects(path)])


def _row(where: str, item: Mapping[str, Any]) -> ResultRow:
    doc = item["doc"] if isinstance(item.get("doc"), Mapping) else {}
    reply = _reply(item, where)
    named = [found[name] for found in (doc, *_metrics(item)) for name in _IDS if name in found]
    ids = texts([*_composed(doc), *named])
    images = texts([*(doc.get(name) for name in _IMAGES), *(name for name in ids if is_image(name))])
    groups = texts([doc.get("category"), doc.get("split"), doc.get("type")])
    return ResultRow(
        where=where,
        reply=reply,
        error="no reply in the samples" if reply is None else None,
        ids=ids,
        question=next(iter(texts([doc.get("question")])), ""),
        prompt=_prompt(item),
        image=next(iter(images), ""),
        groups=(*groups, *(group.removesuffix("_test") for group in groups if group.endswith("_test"))),
        options=_options(doc),
        target=next(iter(texts([item.get("target"), doc.get("answer")])), ""),
    )


def _composed(doc: Mapping[str, Any]) -> Iterator[str]:
    """Ids that a release makes of several fields: HallusionBench's, and POPE's list with the number in it."""
    parts = [texts([doc.get(name)]) for name in _PARTS]
    if all(parts):
        yield "_".join(part[0] for part in parts)
    elif parts[0] and parts[-1]:
        yield f"{parts[0][0]}/{parts[-1][0]}"


def _metrics(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Entries of metrics, which may carry the id."""
    return [value for name, value in item.items() if name != "doc" and isinstance(value, Mapping)]


def _prompt(item: Mapping[str, Any]) -> str:
    return next(_leaves(item.get("input", item.get("arguments"))), "")


def _reply(item: Mapping[str, Any], where: str) -> str | None:
    """The one reply of a sample: as the model gave it, without a lead (its reasoning) that the tool has cut off.

    Raises:
        DataError: there are several different ones.
    """
    filtered, raw = (list(dict.fromkeys(_leaves(item.get(name)))) for name in _REPLIES)
    if len(raw) == 1 and len(filtered) == 1 and raw[0].rstrip().endswith(filtered[0].rstrip()):
        return filtered[0]
    found = raw or filtered
    if len(found) > 1:
        raise DataError(f"{where}: {len(found)} different replies to one question; one each is expected")
    return found[0] if found else None


def _leaves(value: Any) -> Iterator[str]:
    """The texts in nested lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)


def _options(doc: Mapping[str, Any]) -> dict[str, str]:
    """Letter -> text, in whichever of the datasets' forms."""
    for listed in (doc.get("choices"), doc.get("options")):
        if isinstance(listed, list) and listed and all(isinstance(text, str) for text in listed):
            return dict(zip(string.ascii_uppercase, listed, strict=False))
    for form in ("{}", "choice_{}", "option_{}"):
        names = {letter: name for letter in string.ascii_uppercase for name in _spelled(form, letter) if name in doc}
        found = {letter: str(doc[name]) for letter, name in names.items() if str(doc[name]).strip() not in _ABSENT}
        if found:
            return found
    return {}


def _spelled(form: str, letter: str) -> tuple[str, str]:
    return form.format(letter), form.format(letter.lower())
