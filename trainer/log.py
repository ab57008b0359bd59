"""What a training run says of itself: a progress bar, lines of JSON for every few updates, Accelerate's trackers."""

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
from pipeline.runtime.files import append, json_line, make_folder, naming_write_errors, write_bytes

from .held_out import Validation
from .loop import Update

FILE = "log.jsonl"
ANSWER_TOKENS = "answer_tokens"
GIB = 2**30


class TrainingLog:
    """Sums updates up over an interval and reports them; only the main process has one that writes.

    Args:
        folder: gets ``log.jsonl``.
        steps: updates of the whole training run.
        start: updates made before; later lines of an earlier attempt are dropped.
        every: updates of an interval.
        shown: whether this process writes and shows.
        track: takes figures and the update, for trackers.
        labels: what the loss is a mean over, in words.
        image_tokens: that an image stands for.
        passes: from updates made to passes over each source.
        flops: floating-point operations of an update; None where they are not counted.
        peak: that all devices together can do in a second; None where it is not known.
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
        *,
        image_tokens: int = 0,
        passes: Callable[[int], Mapping[str, float]] = lambda step: {},
        flops: Callable[[Update], float | None] = lambda update: None,
        peak: float | None = None,
    ) -> None:
        self._file, self._every, self._steps, self._track = folder / FILE, every, steps, track
        self._shown, self._labels, self._image_tokens = shown, labels, image_tokens
        self._passes, self._flops, self._peak = passes, flops, peak
        self._skipped = self._left_out = 0
        self._held: list[Update] = []
        visible = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="update", file=sys.stderr, disable=not visible)
        if not shown:
            return
        make_folder(folder)
        earlier = [row for row in _rows(self._file) if row["step"] <= start]
        self._skipped = sum(row["skipped"] for row in earlier if isinstance(row.get("skipped"), int))
        write_bytes(self._file, b"".join(map(json_line, earlier)))

    def add(self, update: Update) -> None:
        """Count an update; at the end of an interval, report it."""
        if not self._shown:
            return
        self._held.append(update)
        self._bar.update(1)
        if update.step % self._every and update.step != self._steps:
            return
        row = summary(self._held, self._labels, self._image_tokens)
        row |= self._achieved(self._held)
        row |= {f"passes/{name}": round(number, 4) for name, number in self._passes(update.step).items()}
        self._skipped += row["skipped"]
        self._left_out += row.get("non_finite", 0)
        self._held.clear()
        self._write(row)
        self._bar.set_postfix(loss=f"{row['loss']:.3f}", skipped=row["skipped"], refresh=False)
        if self._bar.disable:
            say(self._line(row))

    def _achieved(self, updates: list[Update]) -> dict[str, float]:
        """Floating-point operations a second, and their share of what the devices can do."""
        counts = [self._flops(update) for update in updates]
        found = [count for count in counts if count is not None]
        if not found:
            return {}
        rate = sum(found) / sum(update.seconds for update in updates)
        return {"flops_per_second": rate, **({} if self._peak is None else {"flops_share": rate / self._peak})}

    def _line(self, row: Mapping[str, Any]) -> str:
        """A row in words."""
        seconds = row["seconds"] / row["updates"]
        left = (self._steps - row["step"]) * seconds
        tokens = f"{row['tokens_per_second']:.0f} tokens/s, " if "tokens_per_second" in row else ""
        share = f", {100 * row['flops_share']:.0f} % of peak FLOP/s" if "flops_share" in row else ""
        lost = f", {row['non_finite']} updates left out (NaN or infinite)" if "non_finite" in row else ""
        return (
            f"update {row['step']} of {self._steps}: loss {row['loss']:.4f}, rate {row['learning_rate']:.2e}, "
            f"gradient {row['gradient_norm']:.3g} (largest {row['gradient_norm_max']:.3g}), "
            f"{row['samples_per_second']:.1f} samples/s, {tokens}skipped {row['skipped']}{lost}, "
            f"passes {in_words(self._passes(row['step']))}, {row['memory_gib']:.2f} GiB{share}, "
            f"{left / 60:.0f} min left"
        )

    def add_validation(self, found: Validation, is_best: bool) -> None:
        """Report a held-out loss.

        Args:
            found: the loss.
            is_best: whether it is the lowest so far.
        """
        if not self._shown:
            return
        by_source = {f"validation/{name}": loss for name, loss in found.sources.items()}
        row = {"step": found.step, "validation_loss": found.loss, **by_source, "validation_labels": found.labels}
        self._write(row | ({"validation_skipped": found.skipped} if found.skipped else {}))
        parts = ", ".join(f"{name} {loss:.4f}" for name, loss in found.sources.items())
        best = ", the lowest so far" if is_best else ""
        skipped = f"; skipped {found.skipped}" if found.skipped else ""
        say(f"update {found.step}: held-out loss {found.loss:.4f}{best} ({parts}){skipped}")

    def _write(self, row: Mapping[str, Any]) -> None:
        """Add a line to the file, and hand its numbers to the trackers."""
        with naming_write_errors(self._file):
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            append(descriptor, self._file, json_line(row))
        finally:
            os.close(descriptor)
        self._track({key: value for key, value in row.items() if isinstance(value, (int, float))}, row["step"])

    def close(self) -> None:
        """Take the bar off, and say what was left out."""
        self._bar.close()
        if not self._shown:
            return
        if self._skipped:
            say(f"skipped: {self._skipped} samples in all could not be used")
        if self._left_out:
            say(f"left out: {self._left_out} updates whose loss or gradient was NaN or infinite (TRAIN.NON_FINITE)")


def in_words(passes: Mapping[str, float]) -> str:
    """Passes over sources in words."""
    return ", ".join(f"{number:.2f} x {name}" for name, number in passes.items()) or "unknown"


def summary(updates: list[Update], counted: str = ANSWER_TOKENS, image_tokens: int = 0) -> dict[str, Any]:
    """Figures of an interval.

    Args:
        updates: at least one.
        counted: what the loss is a mean over, in words.
        image_tokens: that an image stands for.
    Returns: loss (mean over what is counted, also by adapter and source), norms of the gradient, rates per second,
        seconds by what they went into, memory of this process, by name.
    """
    made = [update for update in updates if update.finite]
    last, labels = updates[-1], sum(update.labels for update in updates)
    seconds, tokens = sum(update.seconds for update in updates), sum(update.tokens for update in updates)
    by_adapter = {
        f"loss_{adapter}": _mean_loss([u for u in made if u.adapter == adapter])
        for adapter in sorted({update.adapter for update in made})
    }
    norms, images = [update.norm for update in made], sum(update.tally.images for update in updates)
    waited = sum(update.data_seconds for update in updates)
    return {
        "step": last.step,
        "updates": len(updates),
        "loss": _mean_loss(made),
        **(by_adapter if len(by_adapter) > 1 else {}),
        **_by_source(made),
        "gradient_norm": sum(norms) / max(1, len(norms)),
        "gradient_norm_max": max(norms, default=0.0),
        "learning_rate": last.rate,
        "samples": sum(update.samples for update in updates),
        "skipped": sum(update.skipped for update in updates),
        **({"non_finite": len(updates) - len(made)} if len(made) < len(updates) else {}),
        counted: labels,
        "seconds": round(seconds, 4),
        "data_seconds": round(waited, 4),
        "map_seconds": round(sum(update.map_seconds for update in updates), 4),
        "model_seconds": round(seconds - waited, 4),
        "samples_per_second": sum(update.samples for update in updates) / seconds,
        **({"tokens_per_second": tokens / seconds} if tokens else {}),
        **({"image_tokens_per_second": images * image_tokens / seconds} if image_tokens else {}),
        "memory_gib": memory() / GIB,
    }


def _by_source(updates: list[Update]) -> dict[str, float]:
    """Loss, labels and tokens of each source."""
    names = sorted({name for update in updates for name in update.sources})
    found: dict[str, float] = {}
    for name in names:
        parts = [update.sources[name] for update in updates if name in update.sources]
        labels = sum(part.tally.labels for part in parts)
        found[f"loss/{name}"] = sum(part.loss * part.tally.labels for part in parts) / max(1, labels)
        found[f"labels/{name}"] = labels
        found[f"tokens/{name}"] = sum(part.tally.tokens for part in parts)
    return found


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
