"""What a person at the terminal sees while a run goes on: messages, and a bar with rate and remaining time.

Where standard error is no terminal (a log file), the bar becomes plain lines at growing intervals.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, TextIO

from tqdm import tqdm

from configs.common.escape import terminal_lines

FIRST_LINE_SECONDS, MAX_LINE_SECONDS = 5.0, 60.0


def say(text: str) -> None:
    """Write a message to standard error, above a bar if there is one; nothing in it can steer the terminal."""
    with reader_may_leave(sys.stderr):
        tqdm.write(terminal_lines(text), file=sys.stderr)


def tell(text: str) -> None:
    """Write lines that a user asked for to standard output; nothing in them can steer the terminal.

    Args:
        text: with its last line end.
    """
    write_out(terminal_lines(text))


def write_out(text: str) -> None:
    """Write a text to standard output as it is; a character that the output's encoding lacks becomes an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    with reader_may_leave(sys.stdout):
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


@contextmanager
def reader_may_leave(stream: TextIO) -> Iterator[None]:
    """Flush at the end, and let the work go on unseen where nobody reads any more (``... | head``)."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def warn(text: str) -> None:
    """Write a warning to standard error."""
    say(f"warning: {text}")


class Progress:
    """Counts answered questions.

    Args:
        label: in front of the bar.
        total: questions to answer.
        shown: False on all processes but the main one.
        unit: what is counted, in the plural.
    """

    def __init__(self, label: str, total: int, *, shown: bool, unit: str = "questions") -> None:
        self._label, self._total, self._done, self._unit = label, total, 0, unit
        self._shown = shown and total > 0
        self._bar: tqdm[NoReturn] | None = None
        if self._shown and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=label, unit=unit.removesuffix("s"), file=sys.stderr, dynamic_ncols=True)
        self._start = self._last = time.monotonic()
        self._interval = FIRST_LINE_SECONDS

    def restart(self) -> None:
        """Measure the rate from now on; nothing has been counted yet."""
        self._start = self._last = time.monotonic()
        if self._bar is not None:
            self._bar.reset()

    def advance(self, count: int) -> None:
        """Count questions as answered, and show it where it is time to."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._shown and (time.monotonic() - self._last >= self._interval or self._done == self._total):
            self._last = time.monotonic()
            self._interval = min(2 * self._interval, MAX_LINE_SECONDS)
            say(self.line())

    def expect(self, total: int) -> None:
        """Change how many there are to answer: other processes take work over, or have it taken over."""
        self._total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def note(self, text: str) -> None:
        """Say something on the main process only."""
        if self._shown:
            say(text)

    def line(self) -> str:
        """State of affairs in one line."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self._done / seconds
        share = (
            f"{self._label}: {self._done} of {self._total} {self._unit} ({100 * self._done // max(self._total, 1)} %)"
        )
        left = duration((self._total - self._done) / rate) if rate else "unknown"
        return f"{share}, {rate:.2f} {self._unit}/s, {left} left"

    def __enter__(self) -> Progress:
        """The progress itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


class LoadingBar:
    """How much of a checkpoint has been loaded; where standard error is no terminal, plain lines.

    Args:
        shown: False on all processes but the main one.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._before = shown, 0
        self._progress: Progress | None = None

    def show(self, done: int, total: int) -> None:
        """Show the bytes that are loaded, and those of the whole checkpoint."""
        if self._progress is None:
            self._progress = Progress("loading weights", _megabytes(total), shown=self._shown, unit="MB")
        if new := _megabytes(done) - self._before:
            self._progress.advance(new)
            self._before += new

    def __enter__(self) -> LoadingBar:
        """The bar itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)


def _megabytes(size: int) -> int:
    """Bytes in MB, rounded up, so that whatever is loaded is never nothing."""
    return -(-size // 10**6)


def duration(seconds: float) -> str:
    """Words for a length of time: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
