"""A training run that is asked to end (SIGTERM) finishes its update, saves a checkpoint, and ends.

Schedulers send SIGTERM some while before they kill. A launcher of several processes passes it on; one of a single
process does not, so that a launcher which is gone counts as well.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pipeline.runtime.launcher_watch import ending_orderly

STOPPED = 128 + signal.SIGTERM
"""Exit code of a training run that was asked to end: as shells have it for the signal."""


class StopRequest:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __call__(self) -> bool:
        """Whether it was."""
        return self._asked.is_set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM, and the end of the launcher, as a request instead of an end."""
        with ending_orderly(self._asked.set):
            if threading.current_thread() is not threading.main_thread():
                yield  # only the main thread may take signals
                return
            before = signal.signal(signal.SIGTERM, self._take)
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()
