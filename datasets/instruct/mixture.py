"""How often each of several sources is taken in a pass: their samples one behind the other, repeated or thinned out.

A source of weight 2 has every sample twice in a pass; one of weight 0.5 half of its samples, and the other half in the
next pass. Which samples a pass takes is a pure function of seed and pass, the same on every process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from .order import shuffled

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SourcePart:
    """One of several sources whose samples stand one behind the other.

    Attributes:
        name: in the log.
        size: samples, from 1.
        weight: how often a pass takes each of them, above 0.
    """

    name: str
    size: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: there is no sample, or a pass would take none.
        """
        if self.size < 1 or not self.weight > 0:
            raise ValueError(f"a source needs samples and a weight above 0, not {self}")

    @property
    def whole(self) -> int:
        """How often a pass takes all samples."""
        return int(self.weight)

    @property
    def rest(self) -> int:
        """How many samples a pass takes once more."""
        rest = round((self.weight - self.whole) * self.size)
        return rest if self.whole or rest else 1

    @property
    def slots(self) -> int:
        """Samples of a pass."""
        return self.whole * self.size + self.rest


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several sources as one.

    Attributes:
        parts: at least one.
        seed: from 0.
    """

    parts: Sequence[SourcePart]
    seed: int

    @cached_property
    def _ends(self) -> tuple[Int64Array, Int64Array]:
        """Where the parts end: in a pass, and among the samples."""
        slots, sizes = ([getattr(part, name) for part in self.parts] for name in ("slots", "size"))
        return np.cumsum(slots, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)

    @property
    def num_slots(self) -> int:
        """Samples of a pass, over all parts."""
        return int(self._ends[0][-1])

    def samples(self, slots: Int64Array, number: int) -> Int64Array:
        """The samples that stand at some places of a pass.

        Args:
            slots: places, int64 (N,), below `num_slots`.
            number: of the pass, from 0.
        Returns: numbers of samples, all parts counted one behind the other, int64 (N,).
        """
        slot_ends, sample_ends = self._ends
        found = np.empty(len(slots), np.int64)
        owners = np.searchsorted(slot_ends, slots, side="right")
        for index in np.unique(owners):
            part, mine = self.parts[index], owners == index
            within = slots[mine] - (slot_ends[index] - part.slots)
            copies = part.whole * part.size
            chosen = within % part.size
            once_more = within >= copies
            if once_more.any():
                turn = (number * part.rest + within[once_more] - copies) % part.size
                chosen[once_more] = shuffled(part.size, self.seed, int(index))[turn]
            found[mine] = chosen + sample_ends[index] - part.size
        return found

    def name(self, sample: int) -> str:
        """The part that a sample is of."""
        return self.parts[int(np.searchsorted(self._ends[1], sample, side="right"))].name

    def passes(self, taken: int) -> dict[str, float]:
        """How often each part has been gone through after so many samples of the mixture."""
        return {part.name: taken / self.num_slots * part.slots / part.size for part in self.parts}


def random_subset(count: int, most: int | None, seed: int, *key: int) -> Int64Array:
    """Numbers of a random part, in rising order; a smaller part lies within a larger one.

    Args:
        count: how many there are.
        most: how many are wanted at most; None for all.
        seed: from 0.
        *key: sets the draws of one source apart from those of another.
    """
    if most is None or most >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(shuffled(count, seed, *key)[:most])


def is_held_out(name: str, share: float, seed: int) -> bool:
    """Whether what is learned about an image is held out: the same answer in every source and on every machine.

    Args:
        name: of the image, or of a sample without one; folders do not count.
        share: of the names that are held out.
        seed: from 0.
    """
    if not share:
        return False
    digest = hashlib.sha256(f"{seed}:{PurePosixPath(name).name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") < share * 2**56
