"""How many requests a server gets at a time."""

from __future__ import annotations

import threading
import time

_FIRST = 4
"""Requests under way at the start; more follow while the server keeps up."""


class ConcurrencyGate:
    """Lets so many requests be under way as a server keeps up with: more after each success, half after a refusal.

    Args:
        most: upper bound.
    """

    def __init__(self, most: int) -> None:
        self._most, self._limit = most, float(min(_FIRST, most))
        self._busy = 0
        self._not_before = self._halved_at = 0.0
        self._free = threading.Condition()

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return int(self._limit)

    def enter(self, stopped: threading.Event) -> bool:
        """Wait for a place; False once the run is stopped."""
        with self._free:
            while not stopped.is_set():
                pause = self._not_before - time.monotonic()
                if self._busy < self.limit and pause <= 0:
                    self._busy += 1
                    return True
                self._free.wait(min(0.5, pause) if pause > 0 else 0.5)
        return False

    def leave(self, *, good: bool) -> None:
        """Give the place back; after a success there is room for a little more."""
        with self._free:
            self._busy -= 1
            if good:
                self._limit = min(self._most, self._limit + 1 / self._limit)
            self._free.notify_all()

    def crowded(self, began: float, pause: float) -> None:
        """The server has too much: halve the number, once for all requests that were under way, and wait.

        Args:
            began: when the refused request was sent.
            pause: seconds that nobody sends anything.
        """
        with self._free:
            now = time.monotonic()
            if began >= self._halved_at:
                self._limit, self._halved_at = max(1.0, self._limit / 2), now
            self._not_before = max(self._not_before, now + pause)
