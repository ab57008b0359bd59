"""What every panoptic segmenter gives: images in, one `PanopticMap` each out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..image import DecodedImage, UInt8Array
from .coco import Category
from .errors import SegmenterError

Int32Array = npt.NDArray[np.int32]


def check_pixels(pixels: UInt8Array) -> None:
    """Raise a ValueError for what is no RGB image: grey, with alpha, of another type, or without any pixel."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected RGB pixels, uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
    if pixels.size == 0:
        raise ValueError(f"an image of {pixels.shape[0]}x{pixels.shape[1]} pixels")


def check_finite(name: str, *logits: Any) -> None:
    """Refuse a network's output that holds NaN or infinity, which would pass for an image without objects.

    Args:
        name: of the image.
        logits: tensors.

    Raises:
        SegmenterError: one is not finite.
    """
    if not all(bool(values.isfinite().all()) for values in logits):
        raise SegmenterError(
            f"image {name}: the segmenter's scores are not finite (NaN or infinity), so it has no map; a weight of "
            "SEGMENTER.PATH may be damaged or far too large"
        )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a panoptic map.

    Attributes:
        id: its number in the id map, from 1.
        category_id: row of the class list (for COCO panoptic 0..132, things first).
        score: confidence in 0..1; 1.0 where the backend has none.
    """

    id: int
    category_id: int
    score: float


@dataclass(frozen=True)
class PanopticMap:
    """A panoptic segmentation.

    Attributes:
        id_map: int32 (height, width), row-major; segment ids, 0 = no segment.
        segments: in the backend's order; every one has at least one pixel.
    """

    id_map: Int32Array
    segments: tuple[Segment, ...]


class Segmenter(Protocol):
    """A panoptic segmenter with its own image preparation, thresholds and post-processing."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the maps could: backend, weights, thresholds. Part of a run's identity."""

    @property
    def categories(self) -> Mapping[int, Category]:
        """What the class numbers of its maps stand for: `coco.COCO_BY_INDEX`, or classes of its own."""

    @property
    def reads_maps(self) -> bool:
        """Whether its maps come from files, so that one of any size takes no more memory than itself."""

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """Segment images.

        Args:
            images: of any sizes.
            size: height and width of the returned id maps, e.g. (35, 35).

        Returns:
            one map per image, in order; an empty one (zeros, no segments) where nothing is found. A map is the same
            whatever else is segmented with it.
        """
