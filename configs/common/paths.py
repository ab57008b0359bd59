"""Paths as users write them, checked before anything is opened."""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes of a file's name and of a path, on Linux and macOS."""


def path_text(text: str) -> str:
    """A path as a text, with ``~`` replaced: for settings that name a file or a folder.

    Raises:
        ValueError: see `user_path`.
    """
    path = user_path(text)
    return str(path) if text.startswith("~") else text


def user_path(text: str) -> Path:
    """A path that the file system can be asked for, with ``~`` replaced.

    Args:
        text: as written; it need not exist.

    Raises:
        ValueError: no file can have this path; the message says why, without the path.
    """
    if "\0" in text:
        raise ValueError("a path cannot hold a NUL character")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no user {text.split('/')[0][1:]!r} whose home ~ could mean") from None
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("a path cannot hold half of a surrogate pair") from None
    if len(encoded) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in encoded.split(b"/")):
        raise ValueError(f"too long for a path ({_LONGEST_NAME} bytes for a name, {_LONGEST_PATH} in all)")
    return path
