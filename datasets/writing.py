"""Files and folders that are whole or absent, and what to say where a disk refuses them.

What is written lies under a name of its own first (`PARTIAL`) and is moved to its place when all of it is on the disk.
A process that is killed in between leaves that file; `remove_partial` takes it away when the next run begins.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""End of the names of files and folders that are not whole yet; they begin with a period."""
OLD = 3600.0
"""Seconds after which what is not whole has been left behind, where others may write too."""
_REMEDIES = {
    errno.ENOSPC: "Free some space there, or write to another disk",
    errno.EDQUOT: "Your quota there is used up: remove something, or write to another disk",
    errno.EFBIG: "The file would be larger than allowed here (see ulimit -f)",
    errno.EROFS: "Write to a place that is not read-only",
    errno.EACCES: "Write to a place that is yours, or change its permissions",
    errno.EPERM: "Write to a place that is yours, or change its permissions",
    errno.ENAMETOOLONG: "Choose a shorter name",
}
_ANY = "Write to another place"
_NUMBER = re.compile(r"os error (\d+)")


class WriteError(OSError):
    """Something could not be written: the message says what, why, and what to do; nothing half is left of it."""


def write_error(path: Path, error: BaseException) -> WriteError:
    """The error to raise where a disk refuses a file or folder."""
    said = _NUMBER.search(str(error))  # as libraries in other languages have it
    number = error.errno if isinstance(error, OSError) else int(said.group(1)) if said else None
    why = os.strerror(number) if number else str(error)
    remedy = _REMEDIES.get(number or 0, _ANY)
    return WriteError(
        f"{path}: cannot be written: {why}. {remedy}; what was written before is whole, and the same command goes on "
        "from there."
    )


@contextmanager
def naming_write_errors(path: Path) -> Iterator[None]:
    """Name the file or folder in what is raised when it cannot be written.

    Raises:
        WriteError: in place of any other OSError.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are missing.

    Raises:
        WriteError: it cannot be made.
    """
    with naming_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_bytes(file: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file's content at once, so that no reader and no kill ever sees a half.

    Args:
        file: its folder must exist.
        content: the whole of it.
        sync: wait until it is on the disk; not worth it for what can be made again.

    Raises:
        WriteError: the disk is full or gone; the file is as it was.
    """
    partial = partial_of(file)
    with naming_write_errors(file):
        try:
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            os.replace(partial, file)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder that appears whole or not at all.

    Args:
        folder: must not exist, or be empty.

    Yields: the folder to write into, next to its place.

    Raises:
        WriteError: the disk is full or gone; nothing is left.
    """
    partial = partial_of(folder)
    with naming_write_errors(folder):
        try:
            partial.mkdir(parents=True)
            yield partial
            if folder.exists():
                folder.rmdir()
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def partial_of(path: Path) -> Path:
    """Where a file or folder lies until it is whole; no other process or thread writes there."""
    name = path.name[:_LONGEST_NAME]  # what is added must not make it longer than a name can be
    return path.with_name(f".{name}.{socket.gethostname()[:40]}-{os.getpid()}-{threading.get_ident()}{PARTIAL}")


_LONGEST_NAME = 120


def json_line(values: Any) -> bytes:
    """One line of a JSON Lines file; text as it is, or escaped where UTF-8 cannot hold it (a lone surrogate)."""
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(values).encode() + b"\n"


def append(descriptor: int, file: Path, line: bytes) -> None:
    """Add to the end of a file, all of it or nothing.

    Args:
        descriptor: of the file, opened for appending; nobody else writes to it.
        file: for messages.
        line: what is added.

    Raises:
        WriteError: the disk is full or gone; the file is as it was.
    """
    with naming_write_errors(file):
        before = os.fstat(descriptor).st_size
        try:
            left = line
            while left:
                left = left[os.write(descriptor, left) :]
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, before)
            raise


def remove_partial(folder: Path, older: float = 0.0, pattern: str = ".*" + PARTIAL) -> None:
    """Remove what killed processes left in a folder.

    Args:
        folder: of which this process has the sole use; it may be missing.
        older: seconds since it was last changed; for a folder where others may write right now.
        pattern: of names below the folder.
    """
    now = time.time()
    for left in folder.glob(pattern):
        with suppress(OSError):  # another process was faster; or it stays, which is in nobody's way
            if now - left.stat().st_mtime < older:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
