"""What one process of a machine has read, for the others on it: a private file that is known by its digest.

The digest reaches the others through the process group, and nothing is unpacked that differs from it: what they load is
what a process of this run has written, whoever else can write to the folder.
"""

from __future__ import annotations

import gc
import hashlib
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SpooledValue:
    """A file with a value.

    Attributes:
        path: readable for this user alone.
        digest: SHA-256 of its content.
    """

    path: Path
    digest: str


@contextmanager
def spooled(value: Any) -> Iterator[SpooledValue | None]:
    """Write a value for other processes of this machine, and remove it in the end.

    Yields: the file; None where the value or the disk does not allow it.
    """
    with tempfile.TemporaryDirectory(prefix="collavo-", ignore_cleanup_errors=True) as folder:
        try:
            content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            path = Path(folder) / "spool"
            path.write_bytes(content)
            spool = SpooledValue(path, hashlib.sha256(content).hexdigest())
        except (OSError, pickle.PicklingError, TypeError, AttributeError, RecursionError):
            spool = None  # the others then read for themselves
        yield spool


def unspool(spool: SpooledValue) -> Any:
    """The value that another process of this run has written; None where its file is not here, or is not that one."""
    try:
        content = spool.path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != spool.digest:
        return None
    collects = gc.isenabled()
    gc.disable()  # it would look again and again at all that has been unpacked, and find nothing to collect
    try:
        return pickle.loads(content)
    finally:
        if collects:
            gc.enable()
