"""What a training says of itself: a progress bar, a line of JSON for every few updates, and Accelerate's trackers."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from configs.common.safe_json import parse_json
from pipeline.runtime.console import say
from pipeline.runtime.files import append, json_line, make_folder, write_bytes, writing

from .loop import Update

FILE = "log.jsonl"
ANSWER_TOKENS = "answer_tokens"
GIB = 2**30


class Log:
    """Sums updates up over an interval and reports them; only the main process has one that writes.

    Args:
        folder: gets ``log.jsonl``.
        steps: updates of the whole training.
        start: updates made before; later lines of an earlier attempt are dropped.
        every: updates of an interval.
        shown: whether this process writes and shows.
        track: takes figures and the update, for trackers.
        labels: what the loss is a mean over, in words.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        start: int,
        every: int,
        shown: bool,
        track: Callable[[Mapping[str, Any], int], None],
        labels: str = ANSWER_TOKENS,
    ) -> None:
        self._file, self._every, self._steps, self._track = folder / FILE, every, steps, track
        self._shown, self._labels = shown, labels
        self._held: list[Update] = []
        visible = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="update", file=sys.stderr, disable=not visible)
        if not shown:
            return
        make_folder(folder)
        write_bytes(self._file, b"".join(json_line(row) for row in _rows(self._file) if row["step"] <= start))

    def add(self, update: Update) -> None:
        """Count an update; at the end of an interval, report it."""
        if not self._shown:
            return
        self._held.append(update)
        self._bar.update(1)
        if update.step % self._every and update.step != self._steps:
            return
        row = summary(self._held, self._labels)
        self._held.clear()
        with writing(self._file):
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            append(descriptor, self._file, json_line(row))
        finally:
            os.close(descriptor)
        self._track({key: value for key, value in row.items() if isinstance(value, (int, float))}, update.step)
        self._bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        if self._bar.disable:
            left = (self._steps - update.step) * row["seconds"] / row["updates"]
            tokens = f"{row['tokens_per_second']:.0f} tokens/s, " if update.tokens else ""
            say(
                f"update {update.step} of {self._steps}: loss {row['loss']:.4f}, rate {row['learning_rate']:.2e}, "
                f"{row['samples_per_second']:.1f} samples/s, {tokens}"
                f"{row['memory_gib']:.2f} GiB, {left / 60:.0f} min left"
            )

    def close(self) -> None:
        """Take the bar off."""
        self._bar.close()


def summary(updates: list[Update], counted: str = ANSWER_TOKENS) -> dict[str, Any]:
    """Figures of an interval.

    Args:
        updates: at least one.
        counted: what the loss is a mean over, in words.
    Returns: loss (mean over what is counted, also by adapter), rates per second, memory of this process, by name.
    """
    last, labels = updates[-1], sum(update.labels for update in updates)
    seconds, tokens = sum(update.seconds for update in updates), sum(update.tokens for update in updates)
    by_adapter = {
        f"loss_{adapter}": _mean_loss([u for u in updates if u.adapter == adapter])
        for adapter in sorted({update.adapter for update in updates})
    }
    return {
        "step": last.step,
        "updates": len(updates),
        "loss": _mean_loss(updates),
        **(by_adapter if len(by_adapter) > 1 else {}),
        "gradient_norm": last.norm,
        "learning_rate": last.rate,
        "samples": sum(update.samples for update in updates),
        counted: labels,
        "seconds": round(seconds, 4),
        "samples_per_second": sum(update.samples for update in updates) / seconds,
        **({"tokens_per_second": tokens / seconds} if tokens else {}),
        "memory_gib": memory() / GIB,
    }


def _mean_loss(updates: list[Update]) -> float:
    return sum(u.loss * u.labels for u in updates) / max(1, sum(u.labels for u in updates))


def memory() -> int:
    """Most bytes that this process held so far: on its GPU, or else of main memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used if sys.platform == "darwin" else used * 1024)


def _rows(file: Path) -> list[dict[str, Any]]:
    """Whole lines of an earlier attempt."""
    found = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            row = parse_json(line)
        except ValueError:
            continue  # cut off by a kill
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found
