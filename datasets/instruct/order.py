"""Which samples a step trains on and which adapter: pure functions of seed and step, the same on every process.

Samples form one long stream: the shuffled epochs, one behind the other, cut into batches. Chunks of some batches of one
epoch are sorted by length and cut again, so that a batch needs little padding, and their batches are shuffled (the idea
is that of LLaVA's trainer). Batches belong to the whole run; a process takes its share of each, so that neither the
number of processes nor a stop and start changes what is trained on when.

Shuffling sorts raw 64-bit draws of PCG64, whose values numpy keeps from version to version (NEP 19).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Adapter = Literal["image_cit", "vl_cit"]
CHUNK_BATCHES = 50
"""Batches that are sorted by length together: more need less padding and mix lengths less well."""

_EPOCH, _CHUNK, _ADAPTER = range(3)
"""Set the draws of one purpose apart from those of another."""

_BLOCK = 1024


def _draws(count: int, *key: int) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit numbers that belong to a key of numbers from 0."""
    return np.atleast_1d(np.random.PCG64(np.random.SeedSequence(key)).random_raw(count))


def shuffled(count: int, *key: int) -> Int64Array:
    """The numbers below a count in an order that belongs to a key of numbers from 0."""
    return np.argsort(_draws(count, *key), kind="stable").astype(np.int64)


@lru_cache(maxsize=4)
def epoch_permutation(num_samples: int, seed: int, epoch: int) -> Int64Array:
    """Order of the samples in one epoch, read-only: every number below ``num_samples`` once."""
    order = shuffled(num_samples, seed, _EPOCH, epoch)
    order.flags.writeable = False  # it is shared by all who ask
    return order


@dataclass(frozen=True, kw_only=True)
class DataOrder:
    """The batches of a run.

    Attributes:
        lengths: tokens of each sample, int64 (N,): what is padded to the longest of a batch.
        batch_size: samples of a whole batch, over all processes and accumulation steps.
        seed: from 0.
        num_epochs: how often every sample is trained on; None for an endless stream.
        chunk_batches: see `CHUNK_BATCHES`; 1 leaves lengths as they come.
    """

    lengths: Int64Array = field(repr=False)
    batch_size: int
    seed: int
    num_epochs: int | None = None
    chunk_batches: int = CHUNK_BATCHES

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: there are no samples, or a number is too small.
        """
        if self.lengths.ndim != 1 or not len(self.lengths):
            raise ValueError(f"need the lengths of at least one sample, not an array of {self.lengths.shape}")
        epochs = 1 if self.num_epochs is None else self.num_epochs
        if min(self.batch_size, self.chunk_batches, epochs) < 1 or self.seed < 0:
            raise ValueError(f"batch size, chunk and epochs count from 1, the seed from 0, not {self}")

    @property
    def num_steps(self) -> int | None:
        """Steps until the stream ends, the last one's batch being smaller where it does not divide; None if endless."""
        if self.num_epochs is None:
            return None
        return -(-self.num_epochs * len(self.lengths) // self.batch_size)

    def batch(self, step: int) -> Int64Array:
        """Samples of a step, longest first; all of ``batch_size`` but for the last of the stream.

        Raises:
            IndexError: the stream does not reach that far.
        """
        if step < 0 or (self.num_steps is not None and step >= self.num_steps):
            raise IndexError(f"step {step} is outside the {self.num_steps} steps of the run")
        num, size = len(self.lengths), self.batch_size
        epoch = step * size // num
        first, end = -(-epoch * num // size), (epoch + 1) * num // size  # batches that lie in this epoch alone
        if not first <= step < end:
            return self._by_length(self._stream(step * size, (step + 1) * size))
        chunk, place = divmod(step - first, self.chunk_batches)
        first += chunk * self.chunk_batches
        end = min(first + self.chunk_batches, end)
        place = int(shuffled(end - first, self.seed, _CHUNK, epoch, chunk)[place])
        return self._by_length(self._stream(first * size, end * size))[place * size : (place + 1) * size]

    def _stream(self, start: int, end: int) -> Int64Array:
        """Samples at some places of the stream, up to its end."""
        num = len(self.lengths)
        if self.num_epochs is not None:
            end = min(end, self.num_epochs * num)
        first, last = start // num, (end - 1) // num
        epochs = np.concatenate([epoch_permutation(num, self.seed, epoch) for epoch in range(first, last + 1)])
        return epochs[start - first * num : end - first * num]

    def _by_length(self, samples: Int64Array) -> Int64Array:
        return samples[np.argsort(-self.lengths[samples], kind="stable")]


def share(batch: Int64Array, rank: int, world: int) -> Int64Array:
    """A process's part of a batch: every ``world``-th sample, so that all parts have similar lengths.

    Returns: int64; parts differ by at most one sample, and may be empty where there are fewer samples than processes.

    Raises:
        ValueError: the rank is outside the world.
    """
    if not 0 <= rank < world:
        raise ValueError(f"process {rank} is none of {world}")
    return batch[rank::world]


def adapter_of(seed: int, step: int, share_of_image: float = 0.5) -> Adapter:
    """Which adapter a step trains, drawn at random.

    Args:
        seed: from 0.
        step: from 0.
        share_of_image: probability of ``image_cit``; 0 and 1 leave one adapter out.
    """
    return "image_cit" if _image_steps(seed, step // _BLOCK, share_of_image)[step % _BLOCK] else "vl_cit"


def adapter_step(seed: int, step: int, share_of_image: float = 0.5) -> int:
    """How many earlier steps trained the same adapter: the step's place in that adapter's own data."""
    earlier = image_steps(seed, step, share_of_image)
    return earlier if adapter_of(seed, step, share_of_image) == "image_cit" else step - earlier


def image_steps(seed: int, steps: int, share_of_image: float = 0.5) -> int:
    """How many of the first steps train ``image_cit``."""
    block, place = divmod(steps, _BLOCK)
    trained = [_image_steps(seed, index, share_of_image) for index in range(block)]
    return sum(int(drawn.sum()) for drawn in trained) + int(_image_steps(seed, block, share_of_image)[:place].sum())


def steps_until(adapter: Adapter, wanted: int, seed: int, share_of_image: float = 0.5) -> int:
    """How many steps there are until so many of them have trained an adapter.

    Args:
        adapter: which one; its share must not be 0.
        wanted: steps that train it, from 1.
        seed: from 0.
        share_of_image: see `adapter_of`.
    """
    found = block = 0
    while True:
        drawn = _image_steps(seed, block, share_of_image)
        places = np.flatnonzero(drawn if adapter == "image_cit" else ~drawn)
        if found + len(places) >= wanted:
            return block * _BLOCK + int(places[wanted - found - 1]) + 1
        found, block = found + len(places), block + 1


@lru_cache(maxsize=64)
def _image_steps(seed: int, block: int, share_of_image: float) -> npt.NDArray[np.bool_]:
    """For the steps of a block whether they train ``image_cit``, bool (`_BLOCK`,)."""
    if not 0 <= share_of_image <= 1:
        raise ValueError(f"the share of steps must be between 0 and 1, not {share_of_image}")
    uniform = (_draws(_BLOCK, seed, _ADAPTER, block) >> np.uint64(11)) * 2.0**-53
    drawn: npt.NDArray[np.bool_] = uniform < share_of_image
    drawn.flags.writeable = False
    return drawn
