"""MathVista's own result files: an object from pid to the problem with ``response`` and, later, ``extraction``.

``prediction`` is there what the authors' script made of the extraction, and ``answer`` the ground truth. What a judge
extracted is read apart (``extractions.py``). Source: ``evaluation/generate_response.py`` and ``extract_answer.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.types import DataError

from .row import ResultFile, ResultRow, texts

TOOL = "a result file of MathVista's authors"
_KEYS = {"pid", "question_type", "answer_type", "response"}


def read(path: Path) -> ResultFile | None:
    """Read a file; None for one that is no JSON object of such problems.

    Raises:
        DataError: one of its entries is none.
    """
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not any(_is_problem(item) for item in content.values()):
        return None
    return ResultFile(tool=TOOL, rows=[_row(f"{path}, {key}", item) for key, item in content.items()])


def _is_problem(item: Any) -> bool:
    return isinstance(item, Mapping) and item.keys() >= _KEYS


def _row(where: str, item: Any) -> ResultRow:
    if not isinstance(item, Mapping) or "pid" not in item:
        raise DataError(f"{where}: expected a problem with its pid and response")
    reply = item.get("response")
    said = isinstance(reply, (str, int, float)) and not isinstance(reply, bool)
    return ResultRow(
        where=where,
        reply=str(reply) if said else None,
        error=None if said else _error(item),
        ids=texts([item["pid"]]),
        question=next(iter(texts([item.get("question")])), ""),
        prompt=next(iter(texts([item.get("query")])), ""),
        image=next(iter(texts([item.get("image")])), ""),
        target=next(iter(texts([item.get("answer")])), ""),
    )


def _error(item: Mapping[str, Any]) -> str:
    """Why there is no response, as far as the file says."""
    return next(iter(texts([item.get("error")])), "no response in the file")
