"""Files for the evaluation servers of benchmarks whose test answers are withheld.

GQA and TextVQA take JSON, MMBench a spreadsheet with one row per pass, COCO panoptic a JSON next to a folder of PNGs.
The texts go in as scored: after LLaVA's conversion for GQA, raw for the others, whose servers extract on their own.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..types import Scored
from ..writing import make_folder, naming_write_errors, write_bytes
from .base import Submission

_LETTERS = "ABCD"
_DIGITS = 15


def write_submission(submission: Submission, scored: Sequence[Scored], folder: Path) -> Path:
    """Write what a benchmark's server expects.

    Args:
        submission: the scorer's.
        scored: one entry per record, in the order of the data.
        folder: where the file goes; made if it is missing.

    Returns:
        the file.

    Raises:
        WriteError: the disk is full or gone.
    """
    path = folder / submission.file
    make_folder(folder)
    with naming_write_errors(path):  # the spreadsheet is put together in a temporary file
        content = submission.content(scored)
    write_bytes(path, content)
    return path


def _gqa(scored: Sequence[Scored]) -> bytes:
    return _json([{"questionId": s.record.id, "prediction": s.score.extracted} for s in scored])


def _textvqa(scored: Sequence[Scored]) -> bytes:
    return _json([{"question_id": _number(s.record.id), "answer": s.text} for s in scored])


def _json(rows: list[dict[str, Any]]) -> bytes:
    return _encoded(json.dumps(rows, ensure_ascii=False, indent=0))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _mmbench(scored: Sequence[Scored]) -> bytes:
    import openpyxl  # takes half a second, and a run of no other benchmark needs it

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    extra = ["answer"] if any(s.record.target is not None for s in scored) else []
    extra += ["split"] if any(s.record.meta.get("split") for s in scored) else []
    sheet.append(["index", "question", *_LETTERS, "prediction", *extra])
    for item in scored:
        record = item.record
        options = [record.meta["options"].get(letter, "") for letter in _LETTERS]
        last = {"answer": record.target, "split": record.meta.get("split", "")}
        texts = [record.fields["question"], *options, item.text, *(last[name] for name in extra)]
        index = _number(record.id)
        first = index if isinstance(index, int) else _text_cell(sheet, index)
        sheet.append([first, *(_text_cell(sheet, text) for text in texts)])
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def _text_cell(sheet: Any, text: str | None) -> Any:
    """A cell that stays text: no formula for "=1+1", no control characters, which the format forbids."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if not text:
        return None
    cell = WriteOnlyCell(sheet, value=ILLEGAL_CHARACTERS_RE.sub("", text))
    cell.data_type = "s"
    return cell


def _number(key: str) -> int | str:
    """An id as the server has it: a number where it is one (of a spreadsheet, which holds 15 digits, at most)."""
    return int(key) if key.isascii() and key.isdigit() and len(key) <= _DIGITS else key


def _panoptic(scored: Sequence[Scored]) -> bytes:
    """COCO's panoptic result format; images without a map are not in it."""
    images, annotations = [], []
    categories: dict[int, tuple[str, bool]] = {}
    for item in scored:
        if item.score.value is not None:
            found, image_id = json.loads(item.text), item.record.meta["image_id"]
            categories |= item.record.meta["categories"]
            images.append({"id": image_id, "file_name": item.record.id})
            listed = {"file_name": found["file_name"], "segments_info": found["segments_info"]}
            annotations.append({"image_id": image_id, **listed})
    classes = [{"id": key, "name": name, "isthing": int(thing)} for key, (name, thing) in categories.items()]
    content = {"images": images, "annotations": annotations, "categories": classes}
    return _encoded(json.dumps(content, ensure_ascii=False))


GQA = Submission(file="gqa_predictions.json", content=_gqa)
TEXTVQA = Submission(file="textvqa_submission.json", content=_textvqa)
MMBENCH = Submission(file="mmbench_submission.xlsx", content=_mmbench)
PANOPTIC = Submission(file="panoptic.json", content=_panoptic)
