"""The launcher of this process, watched: a process whose launcher was killed ends, wherever it is and waits.

Processes that wait for one another in C code, with a limit of hours, notice nothing by themselves: they would hold
their memory, and a later run on the same port would wake them. Importing this takes no time, so that the launcher is
noted as soon as a process starts.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

INTERVAL = 1.0
"""Seconds between two looks."""
GRACE = 60.0
"""Seconds that work which can end in order has to do so."""
GONE = 1
"""Exit code of a process that its launcher left."""
LAUNCHED = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")
"""Variables that ``torchrun`` and ``accelerate launch`` leave to their processes."""
_ADOPTERS = ("systemd", "init", "tini", "docker-init", "dumb-init", "catatonit", "launchd")
"""Programs that take processes on whose parent has ended, besides process 1."""

_watched = threading.Event()
_ends: list[tuple[int, Callable[[], None]]] = []
"""The launcher that is watched, and what ends this process without it."""
_tells: list[Callable[[], None]] = []
"""Of work that can end in order: each is called when the launcher is gone."""


def watch_launcher(environ: Mapping[str, str], leave: Callable[[], None] | None = None) -> None:
    """End this process as soon as its launcher is gone; nothing where there is no launcher, or it is watched already.

    What was written so far is whole: journals grow by whole lines, other files appear at once.

    Args:
        environ: the process environment as the launcher left it.
        leave: ends the process; tests give another one.
    """
    if not any(name in environ for name in LAUNCHED) or _watched.is_set():
        return
    _watched.set()
    end = leave or (lambda: _leave(environ))
    parent = os.getppid()
    if not is_launcher(parent):
        end()
    _ends.append((parent, end))
    threading.Thread(target=_watch, args=(parent, end), name="launcher", daemon=True).start()


def end_without_launcher() -> None:
    """End this process, if it is watched and its launcher is gone already.

    Called before an error is reported: another process that noticed first has ended, and whatever this one was doing
    together with it failed for that reason alone.
    """
    for parent, end in _ends:
        if os.getppid() != parent:
            end()


@contextlib.contextmanager
def ending_orderly(tell: Callable[[], None]) -> Iterator[None]:
    """Let the work within end in order where the launcher goes: it has `GRACE` seconds for that.

    Args:
        tell: called, in another thread, when the launcher is gone.
    """
    _tells.append(tell)
    try:
        yield
    finally:
        _tells.remove(tell)


def _watch(parent: int, end: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    until = time.monotonic() + GRACE
    for tell in list(_tells):
        tell()
    while _tells and time.monotonic() < until:
        time.sleep(INTERVAL / 10)
    end()


def _leave(environ: Mapping[str, str]) -> None:
    """End at once; the main thread may wait in C code, or hold the lock of standard error."""
    if environ.get("LOCAL_RANK", "0") == "0":
        os.write(2, b"error: the launcher is gone; this process ends. What was done so far is kept.\n")
    os._exit(GONE)


def is_launcher(parent: int, processes: Path = Path("/proc")) -> bool:
    """Whether a process may be a launcher, rather than one that took this process on when its launcher had ended.

    Launchers are Python programs. One that is process 1 of a container looks like any other.

    Args:
        parent: its number.
        processes: where the system describes processes; where it does not, nothing is known against it.
    """
    try:
        name = (processes / str(parent) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        command = (processes / str(parent) / "cmdline").read_bytes()
    except OSError:
        return parent != 1 or not processes.is_dir()
    return b"python" in command if parent == 1 else name not in _ADOPTERS
