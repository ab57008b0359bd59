"""Settings of the segmenter, as the configuration names them; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SegmenterConfig:
    """Which segmenter gives the panoptic maps, and how.

    Attributes:
        NAME: backend: a module of ``modeling/segmenters`` (mask2former, precomputed, none).
        PATH: mask2former: checkpoint directory or hub name; precomputed: COCO panoptic JSON.
        IMAGES: precomputed: folder of the panoptic PNGs.
        THRESHOLD: mask2former: least confidence of a segment, 0..1.
        MASK_THRESHOLD: mask2former: least share of a segment's own mask that it must keep, 0..1.
    """

    NAME: str = "mask2former"
    PATH: str = "facebook/mask2former-swin-large-coco-panoptic"
    IMAGES: str = ""
    THRESHOLD: float = 0.5
    MASK_THRESHOLD: float = 0.95
