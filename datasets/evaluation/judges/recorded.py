"""Verdicts in files: kept next to a run's results, so that scores can be made again, and those that others publish.

Ours are JSON lines with id, part, verdict, reply, failure and judge. Also read: an object from ids to a text
(extractions), to an object of texts (HallusionBench's ``correctness`` and ``same``), to MM-Vet's ``{"score": [...]}``,
and to MathVista's problems with an ``extraction``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.common.safe_json import parse_json
from configs.common.words import quoted, shown

from ...types import DataError
from ...writing import write_bytes
from .base import Verdict


def write_verdicts(path: Path, verdicts: Sequence[Verdict], judge: str) -> None:
    """Write verdicts as JSON lines, in the order given; the file appears whole or not at all.

    Args:
        path: the file.
        verdicts: those without a value too, with the reason.
        judge: its name.

    Raises:
        WriteError: the disk is full or gone.
    """
    lines = [
        {
            "id": verdict.record,
            "part": verdict.part,
            "verdict": verdict.value,
            "reply": verdict.reply,
            "failure": verdict.failure,
            "judge": judge,
        }
        for verdict in verdicts
    ]
    write_bytes(path, "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines).encode())


def read_verdicts(path: Path) -> dict[str, dict[str, str]]:
    """Read verdicts by record and part; those without a value are left out.

    Raises:
        DataError: the file is unreadable or of no known form; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return _lines(path, text)
        content = parse_json(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as verdicts: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object from ids to verdicts, got {type(content).__name__}")
    return {str(key): _parts(value, f"{path}, {key}") for key, value in content.items()}


def _lines(path: Path, text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            item = parse_json(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not isinstance(item.get("part"), str):
            raise DataError(f"{where}: expected an object with the texts 'id' and 'part'")
        parts = found.setdefault(item["id"], {})
        if item["part"] in parts:
            raise DataError(f"{where}: a second verdict '{shown(item['part'])}' on {shown(item['id'])}")
        if item.get("verdict") is not None:
            parts[item["part"]] = _text(item["verdict"], where)
    return found


def _parts(value: Any, where: str) -> dict[str, str]:
    """One record's verdicts, in whatever form."""
    if not isinstance(value, dict):
        return {"verdict": _text(value, where)}
    if isinstance(value.get("score"), list):
        return {f"run{number}": _text(grade, where) for number, grade in enumerate(value["score"], start=1)}
    if "extraction" in value:
        return {"verdict": _text(value["extraction"], where)}
    return {str(part): _text(verdict, where) for part, verdict in value.items()}


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: a verdict is a text or a number, got {quoted(value)}")
    return str(value)
