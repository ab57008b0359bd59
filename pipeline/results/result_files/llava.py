"""LLaVA's answer files: JSON lines with ``question_id``, ``prompt``, ``text`` (the reply) and ``answer_id``.

Their ``question_id`` is the release's id in some benchmarks. In others it is the image, once for each of its questions
(MME, TextVQA), or a running number: MM-Vet's from 0, and POPE's, whose lists follow each other as adversarial from 1,
random from 10,000,001 and popular from 20,000,001. The prompt holds the question. Source: ``llava/eval/model_vqa_*.py``
and the question files of its evaluation package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.types import DataError

from .lines import begins_with, objects
from .row import ResultFile, ResultRow, is_image, texts

TOOL = "LLaVA's answer file"
_KEYS = ("question_id", "prompt", "text", "answer_id")
_POPE = ("adversarial", "random", "popular")
_POPE_STRIDE = 10_000_000
_IMAGE_ID = 16
"""Characters of an image's id in TextVQA."""


def read(path: Path) -> ResultFile | None:
    """Read a file; None for one whose first line lacks the tool's keys.

    Raises:
        DataError: a line is malformed, or belongs to a pass whose options the tool rotated by itself.
    """
    if not begins_with(path, _KEYS):
        return None
    return ResultFile(tool=TOOL, rows=[_row(where, item) for where, item in objects(path)])


def _row(where: str, item: dict[str, Any]) -> ResultRow:
    reply, key, prompt = item.get("text"), item.get("question_id"), item.get("prompt")
    if not isinstance(reply, str) or not isinstance(prompt, str) or not texts([key]):
        raise DataError(f"{where}: expected 'question_id', and texts under 'prompt' and 'text'")
    if item.get("round_id"):
        raise DataError(
            f"{where}: round_id {item['round_id']}: with --all-rounds LLaVA rotates the options by itself, and the "
            "benchmark's own rows of these passes are other ones; answer the table without --all-rounds"
        )
    name = str(key)
    letters, options = item.get("option_char"), item.get("options")
    known = isinstance(letters, list) and isinstance(options, list) and len(letters) == len(options)
    return ResultRow(
        where=where,
        reply=reply,
        ids=texts([key, *_numbers(key)]),
        prompt=prompt,
        image=name if is_image(name) or len(name) == _IMAGE_ID else "",
        groups=texts([name.split("/")[0]]) if "/" in name else (),
        options=dict(zip(map(str, letters or ()), map(str, options or ()), strict=True)) if known else {},
    )


def _numbers(key: Any) -> tuple[str, ...]:
    """What a running number is in the releases of POPE (list and number in it) and MM-Vet."""
    if not isinstance(key, int) or not 0 <= key < _POPE_STRIDE * len(_POPE):
        return ()
    return f"{_POPE[key // _POPE_STRIDE]}/{key % _POPE_STRIDE}", f"v1_{key}"
