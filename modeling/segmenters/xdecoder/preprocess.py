"""From a decoded image to the network's input: resized, normed, padded.

Source: Zou et al. 2022 (arXiv 2212.11270). Its public code has two rules. ``evaluation``: the shorter side becomes 800
unless the longer one would pass 1333, bilinear, sides rounded half up. ``demo``: the shorter side becomes 512, bicubic,
the longer one is cut down to an integer, without a limit. Both resize 8-bit images with Pillow.

Shapes: H x W an image in pixels, h x w resized, P x S padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...image import UInt8Array
from ..base import check_pixels

EVALUATION, DEMO = "evaluation", "demo"
MAX_PIXELS = 2**24  # of a resized image; the network needs about 2 GiB for one of these


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """How images are resized.

    Attributes:
        short_side: wanted length of the shorter side, pixels.
        long_side: most the longer side may have, pixels; None for no limit.
        demo: bicubic with lengths cut down, rather than bilinear with lengths rounded half up.
    """

    short_side: int = 800
    long_side: int | None = 1333
    demo: bool = False

    @classmethod
    def named(cls, name: str, short_side: int | None = None, long_side: int | None = None) -> ResizeRule:
        """A rule by name, with its own lengths where none are given.

        Raises:
            ValueError: no rule of that name, or a length below 1.
        """
        if name not in (EVALUATION, DEMO):
            raise ValueError(f"no rule '{name}'; there are: {EVALUATION}, {DEMO}")
        if any(side is not None and side < 1 for side in (short_side, long_side)):
            raise ValueError(f"sides of {short_side} and {long_side} pixels; both must be at least 1")
        demo = name == DEMO
        own_short, own_long = (512, None) if demo else (800, 1333)
        return cls(short_side=short_side or own_short, long_side=long_side or own_long, demo=demo)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after the resize; at least one pixel each.

        Raises:
            ValueError: a side is 0, or the result has more than `MAX_PIXELS` pixels.
        """
        if min(height, width) < 1:
            raise ValueError(f"an image of {height}x{width} pixels")
        short, long = self._sides(min(height, width), max(height, width))
        if short * long > MAX_PIXELS:
            raise ValueError(f"{height}x{width} pixels would become {short} by {long}; limit SEGMENTER.LONG_SIDE")
        return (short, long) if height <= width else (long, short)

    def _sides(self, short: int, long: int) -> tuple[int, int]:
        """Shorter and longer side after the resize."""
        new_short, new_long = float(self.short_side), self.short_side * long / short
        if not self.demo:
            # this order of operations, so that lengths at exactly one half round as the reference's do
            new_long = self.short_side / short * long
        if self.long_side is not None and new_long > self.long_side:
            factor = self.long_side / new_long
            new_short, new_long = new_short * factor, new_long * factor
        half = 0.0 if self.demo else 0.5
        return max(1, int(new_short + half)), max(1, int(new_long + half))

    def resize(self, pixels: UInt8Array) -> UInt8Array:
        """Resize an image, uint8 (H, W, 3) to (h, w, 3).

        Raises:
            ValueError: it is no such image, or see `size`.
        """
        check_pixels(pixels)
        height, width = self.size(*pixels.shape[:2])
        method = Image.Resampling.BICUBIC if self.demo else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def padded_size(size: tuple[int, int], divisibility: int) -> tuple[int, int]:
    """Height and width, each rounded up to a multiple."""
    height, width = (-(-side // divisibility) * divisibility for side in size)
    return height, width


def normalise_and_pad(
    images: Sequence[UInt8Array], mean: Sequence[float], std: Sequence[float], padded: tuple[int, int]
) -> Tensor:
    """Norm images and pad them with zeros at the right and the bottom.

    Args:
        images: resized, uint8 (h, w, 3) each, none larger than ``padded``.
        mean: per channel, of 0..255.
        std: per channel, of 0..255.
        padded: height and width of the result.

    Returns:
        float32 (B, 3, P, S).
    """
    batch = torch.zeros(len(images), 3, *padded)
    shift, scale = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))
    for row, pixels in zip(batch, images, strict=True):
        channels = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
        row[:, : channels.shape[1], : channels.shape[2]] = (channels - shift) / scale
    return batch
