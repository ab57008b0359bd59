"""The sole use of a folder: of two runs that would write into one, the second says so and ends.

The lock is the system's (``flock``): it goes with the process that holds it, however that ends, so that a killed run
never stands in the way of the next. On network file systems it holds between machines as far as they pass locks on
(NFS and Lustre do, as they are usually mounted); where a file system has none, that is said once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .console import warn
from .errors import RunError
from .files import make_folder, naming_write_errors, remove_partial

NAME = ".lock"
PATIENCE = 15.0
"""Seconds that a run waits for another to let go: processes whose launcher was killed need a moment to end."""
_INTERVAL = 0.2
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FolderLock:
    """A held lock.

    Args:
        folder: made if it is missing.
        patience: seconds to wait for another process to let go; `PATIENCE` if None.

    Raises:
        RunError: another process has it; the message says which, and what to do.
        WriteError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, patience: float | None = None) -> None:
        self._file = make_folder(folder) / NAME
        deadline = time.monotonic() + (PATIENCE if patience is None else patience)
        while (descriptor := _try(self._file)) is None:
            if time.monotonic() >= deadline:
                raise RunError(in_use(folder, _holder(self._file)))
            time.sleep(_INTERVAL)
        self._descriptor = descriptor
        with naming_write_errors(self._file):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Let go; the file goes first, while nobody else can have it."""
        self._file.unlink(missing_ok=True)
        os.close(self._descriptor)


def _try(file: Path) -> int | None:
    """A locked descriptor; None where another process has the lock.

    Raises:
        WriteError: the file cannot be opened.
    """
    with naming_write_errors(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NONE:
            warn(f"{file.parent}: its file system has no locks; see to it that no other run writes there")
            return descriptor
        os.close(descriptor)
        if error.errno in _TAKEN:
            return None
        raise
    if not _is(file, descriptor):  # whoever had it took the file away meanwhile
        os.close(descriptor)
        return None
    return descriptor


def _is(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def in_use(folder: Path, holder: str) -> str:
    """The message for a second run."""
    by = f" ({holder})" if holder else ""
    return (
        f"{folder} is in use by another run{by}: two would write over each other. Wait for it or end it, or choose "
        "another folder (SAVE_DIR, or --out)"
    )


def check_free(folder: Path, patience: float | None = None) -> None:
    """Look whether a folder is in use, without making or changing anything.

    Raises:
        RunError: it is.
    """
    file = folder / NAME
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while _is_held(file):
        if time.monotonic() >= deadline:
            raise RunError(in_use(folder, _holder(file)))
        time.sleep(_INTERVAL)


def _is_held(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(descriptor)
    return False


@contextmanager
def sole_use(folders: Sequence[Path], patience: float | None = None) -> Iterator[None]:
    """Hold the locks of folders, and clear them of what killed processes left half-written.

    Raises:
        RunError, WriteError: see `FolderLock`.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(folders):
            held.callback(FolderLock(folder, patience).release)
            remove_partial(folder)
        yield
