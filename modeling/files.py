"""Files of checkpoints, read without trusting them. Importing this loads no torch.

Whoever reads a checkpoint turns a `FileError` into an error of its own.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

from configs.common.words import quoted

LARGEST_JSON = 2**28
"""Bytes; the largest tokenizers take a tenth of this."""

_LFS = b"version https://git-lfs.github.com/spec/"
_SHARED_MODE = 0o666


class FileError(Exception):
    """A file that is not what it should be: the message names it and says what it is instead."""


def is_file(path: Path) -> bool:
    """Whether a path is a regular file; False for what no file system has (too long, with a null byte, a loop)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is a directory; False as in `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def placeholder_kind(head: bytes) -> str | None:
    """What a file's first bytes show that stands in the place of the real one: nothing, a pointer, a web page."""
    if not head:
        return "is empty"
    if head.startswith(_LFS):
        return "is a git-lfs pointer, not the file itself: fetch it with 'git lfs pull', or download it from the hub"
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not the file itself: the download failed"
    return None


def check_real(file: Path) -> None:
    """Check that a file is there and is no stand-in for itself, see `placeholder_kind`.

    Raises:
        FileError: it is not.
    """
    if not is_file(file):
        raise FileError(f"{file}: not found" if not is_folder(file) else f"{file}: is a directory, not a file")
    try:
        with file.open("rb") as stream:
            found = placeholder_kind(stream.read(256))
    except OSError as error:
        raise FileError(f"{file}: not readable ({error.strerror})") from error
    if found:
        raise FileError(f"{file} {found}")


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileError: the file is missing or a stand-in, no JSON, no object, or holds a number that is none (NaN, 1e999).
    """
    check_real(file)
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise FileError(f"{file}: not readable as JSON (it is larger than {LARGEST_JSON // 2**20} MiB)")
        values = json.loads(file.read_bytes(), parse_constant=_finite, parse_float=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise FileError(f"{file}: expected a JSON object, found {quoted(values)}")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that JSON knows")
    return value


def path_in_folder(folder: Path, name: object) -> Path:
    """A file or folder that is named in a file of ``folder`` and must lie in it.

    Links are followed, since caches consist of them; names are what must not lead out.

    Raises:
        FileError: the name is none, is absolute, or leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise FileError(f"{quoted(name)} is no name of a file")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise FileError(f"{quoted(name)} leads out of {folder}")
    return folder / path


def give_usual_permissions(file: Path) -> None:
    """Give a file the rights that files newly made next to it have: safetensors makes its own for the owner alone."""
    probe = file.with_name(f".{file.name}.{os.getpid()}.rights")
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _SHARED_MODE)
    try:
        file.chmod(os.fstat(descriptor).st_mode & 0o777)
    finally:
        os.close(descriptor)
        probe.unlink()
