"""What a judge extracted from replies, where a result file keeps it next to them, as MathVista's own files do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IDS = ("pid", "question_id", "id")
"""Names under which a list's entries give their ids, in the order in which they are looked for."""


def extractions(path: Path, name: str) -> dict[str, dict[str, str]]:
    """Verdicts that a file of replies holds, by id; none where it holds none, or is no JSON.

    Args:
        path: the file.
        name: of the field, e.g. ``extraction``.
    """
    found: dict[str, dict[str, str]] = {}
    for key, item in _items(path):
        value = item.get(name) if isinstance(item, dict) else None
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            found[key] = {"verdict": str(value)}
    return found


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Id and entry, of an object of entries, a list of them, or JSON lines; what cannot be read is said elsewhere."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text)
    except (OSError, UnicodeDecodeError, RecursionError):
        return
    except ValueError:
        try:
            content = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError):
            return
    if isinstance(content, dict):
        yield from ((str(key), item) for key, item in content.items())
    elif isinstance(content, list):
        for item in content:
            key = next((item[name] for name in IDS if name in item), None) if isinstance(item, dict) else None
            if key is not None:
                yield str(key), item
