"""How many requests a server gets at a time, and what they may cost."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from datasets.evaluation.judges.connection import Completion

if TYPE_CHECKING:
    from .options import ModelConfig


_FIRST = 4
"""Requests under way at the start; more follow while the server keeps up."""
_MILLION = 1e6


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


class Spending:
    """Counts tokens and money.

    Args:
        model: its prices, and ``MAX_COST``, of which each of the run's processes has its part.
        processes: how many there are.
    """

    def __init__(self, model: ModelConfig, processes: int) -> None:
        self._prices = (model.PRICE_INPUT, model.PRICE_OUTPUT)
        self._most = None if model.MAX_COST is None else model.MAX_COST / processes
        self._lock = threading.Lock()
        self._input = self._output = self._requests = self._waiting = 0

    def cost_of(self, tokens_in: float, tokens_out: float) -> float | None:
        """US dollars; None where no price is configured."""
        price_in, price_out = self._prices
        if price_in is None or price_out is None:
            return None
        return (tokens_in * price_in + tokens_out * price_out) / _MILLION

    @property
    def cost(self) -> float | None:
        """What was spent."""
        return self.cost_of(self._input, self._output)

    def reserve(self) -> bool:
        """Whether one more request fits, given what the requests under way will cost by the mean so far."""
        with self._lock:
            cost = self.cost
            if self._most is not None and cost is not None:
                mean = cost / self._requests if self._requests else 0.0
                if cost + mean * (self._waiting + 1) > self._most:
                    return False
            self._waiting += 1
            return True

    def settle(self, found: Completion | None) -> None:
        """Count a request that came back, or failed."""
        with self._lock:
            self._waiting -= 1
            if found is not None:
                self._requests += 1
                self._input += found.input_tokens
                self._output += found.output_tokens

    def describe(self) -> str:
        """What was spent, in words."""
        cost = "" if self.cost is None else f", {self.cost:.4f} US dollars"
        return f"{self._requests} replies, {self._input} tokens in, {self._output} out{cost}"
