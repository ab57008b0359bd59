"""Samples that cannot be trained on are skipped and counted; too many of them end a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from configs.common.words import and_more
from pipeline.runtime.session import AgreedError

FIRST = 100
"""Samples after which the share of skipped ones counts."""
NAMED = 5
"""How many skipped samples an error names."""


class SkippedSamples:
    """Counts skipped samples, and ends a training run that hardly trains.

    Args:
        most: share of the samples that may be skipped, once `FIRST` were drawn.
        gather: the texts of all processes; all call it at the same time.
    """

    def __init__(self, most: float, gather: Callable[[Sequence[str]], list[str]]) -> None:
        self._most, self._gather = most, gather
        self._drawn = self._skipped = 0
        self._reasons: list[str] = []

    def add(self, step: int, samples: int, skipped: int, reasons: Sequence[str]) -> None:
        """Count the batch of an update.

        Args:
            step: updates before it.
            samples: of the whole batch that can be trained on.
            skipped: of the whole batch that cannot.
            reasons: why, one line for each skipped sample of this process.

        Raises:
            AgreedError: nothing of the batch can be trained on, or more than ``most`` was skipped so far.
        """
        self._drawn, self._skipped = self._drawn + samples + skipped, self._skipped + skipped
        self._reasons = [*self._reasons, *reasons][-NAMED:]
        if not samples:
            raise AgreedError(f"update {step + 1} has nothing to learn from: {self._listed(skipped)}")
        if self._drawn >= FIRST and self._skipped > self._most * self._drawn:
            raise AgreedError(
                f"{self._skipped} of {self._drawn} samples were skipped by update {step + 1}, more than "
                f"TRAIN.MAX_SKIPPED {self._most:g} allows: {self._listed(self._skipped)}"
            )

    def _listed(self, number: int) -> str:
        """The last reasons of all processes."""
        reasons = self._gather(self._reasons)
        if not reasons:
            return "its batch is empty"
        lines = [*reasons[:NAMED], *filter(None, [and_more(number, NAMED)])]
        listed = "\n  ".join(["samples cannot be used, among them", *lines])
        return f"{listed}\nlbk_entry.py validate train names all of them"
