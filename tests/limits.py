"""How long and how much tests may take: one place, so that no test fails because a machine is slow or busy.

Nothing here is a bound that a test measures: a limit only ends what hangs.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Protocol

import psutil

LIMIT = 1200.0
"""Seconds that a process, or a state that a test waits for, may take; only what hangs takes so long."""
PROFILE = os.environ.get("COLLAVO_TESTS", "full")
"""Of generated examples: ``full``; ``quick``, a few of them; or ``random``, others every time."""
QUICK = PROFILE == "quick"
"""Whether generated examples are few."""
_FEW = 10
_PORTS = range(20000, 32000)


def examples(number: int) -> int:
    """How many examples a property is tried on: as many as asked for, or a few in the quick profile."""
    return min(number, _FEW) if QUICK else number


def wait_for(happened: Callable[[], object], unless: Callable[[], object] = lambda: False) -> None:
    """Wait until something has happened.

    Args:
        happened: whether it has.
        unless: whether it cannot happen any more, which fails.
    """
    until = time.monotonic() + LIMIT
    while not happened():
        assert not unless(), "what was waited for cannot happen any more"
        assert time.monotonic() < until, f"waited {LIMIT} s in vain"
        time.sleep(0.01)


class Started(Protocol):
    """A process that a test started: `subprocess.Popen`, or a forked one (`tests.warm`)."""

    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...


def kill(process: Started) -> None:
    """Kill a launcher and what it started, which has sessions of its own."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def free_port() -> int:
    """A port of this machine that nobody uses, below those that systems give to outgoing connections.

    Somebody could take it before it is used; drawn among many, that is one chance in thousands.
    """
    drawn = random.SystemRandom()
    while True:
        port = drawn.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
