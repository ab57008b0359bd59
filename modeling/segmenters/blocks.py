"""Which images share a forward pass, so that no map depends on the other images of its batch.

The order in which a product is summed up depends on the shapes of its factors, and a pixel between two masks can fall
to either side by the last digit. So a pass always has one number of images: a block. Images of one prepared size share
it, and copies of the last one fill it up. On a CPU larger passes are hardly faster, and a block is one image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any


def block_size(batch_size: int, device: Any) -> int:
    """Images of a forward pass.

    Args:
        batch_size: ``SEGMENTER.BATCH_SIZE``.
        device: name or ``torch.device``.
    """
    return 1 if str(device).split(":")[0] == "cpu" else batch_size


def block_name(block: int) -> str:
    """What a fingerprint says of a block; nothing of a single image, which every batch size has on a CPU."""
    return "" if block == 1 else f"-{block}"


def blocks(sizes: Sequence[Hashable], block: int) -> Iterator[list[int]]:
    """Put images of one prepared size together.

    Args:
        sizes: of the prepared images.
        block: images of a forward pass.

    Yields: indices of at most ``block`` images that share a pass.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    for indices in groups.values():
        for start in range(0, len(indices), block):
            yield indices[start : start + block]


def filled(indices: Sequence[int], block: int) -> list[int]:
    """The images of a pass: those that share it, and the last one again until there are ``block``."""
    return [*indices, *[indices[-1]] * (block - len(indices))]
