"""Files that are whole or absent: written beside their place and moved there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import RunError


def check_folder(key: str, folder: Path) -> None:
    """Check that files can be written below a folder, which need not exist yet. Makes nothing.

    Args:
        key: the setting that names it.
        folder: may begin with ``~``.

    Raises:
        RunError: a file is in its place or above it, or it cannot be written to.
    """
    place = folder.expanduser().absolute()
    there = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise RunError(f"{key}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{key}: {there} cannot be written to; choose another folder")


def write_bytes(file: Path, content: bytes) -> None:
    """Replace a file's content at once, so that no reader and no kill ever sees a half.

    Args:
        file: its folder must exist.
        content: the whole of it.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def write_text(file: Path, text: str) -> None:
    """Replace a text file at once; UTF-8, line ends as they are."""
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def json_line(values: Any) -> bytes:
    """One line of a JSON Lines file; text as it is, or escaped where UTF-8 cannot hold it (a lone surrogate)."""
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(values).encode() + b"\n"


def write_json(file: Path, values: Any) -> None:
    """Replace a JSON file at once, indented for readers."""
    write_text(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
