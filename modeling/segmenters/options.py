"""Settings of the segmenter, as the configuration names them; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from configs.common.field_types import Fraction, PathText, PositiveInt

NAME = "mask2former"
MASK2FORMER = "facebook/mask2former-swin-large-coco-panoptic"
ZOO_CONFIG = "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml"
RESIZE: Literal["evaluation"] = "evaluation"


@dataclass
class SegmenterConfig:
    """Which segmenter gives the panoptic maps, and how. What is empty or None is as the checkpoint says, if it does.

    Attributes:
        NAME: backend: a module of ``modeling/segmenters`` (mask2former, xdecoder, detectron2,
            precomputed, none). Empty, where no checkpoint says which: mask2former.
        PATH: mask2former: checkpoint directory or hub name (empty: the released one's); xdecoder: a released ``.pt``
            file, or a directory with config.json and model.safetensors; detectron2: a weights file, ``.pkl`` as its zoo
            has them, ``.pth`` or ``.safetensors``; precomputed: COCO panoptic JSON.
        ZOO_CONFIG: detectron2: the configuration of its zoo that the weights belong to. Empty: its smallest panoptic
            one.
        IMAGES: precomputed: folder of the panoptic PNGs.
        THRESHOLD: least confidence of a segment, 0..1. None is the backend's own: mask2former 0.5, xdecoder 0.8,
            detectron2 0.5 (of things; stuff has none there).
        MASK_THRESHOLD: least share of its own mask that a segment must win from the others, 0..1. None is the
            backend's own: mask2former 0.95, xdecoder 0.8, detectron2 0.5 (of things).
        CLASSES: xdecoder: names of the classes to look for, at most 133; empty: the 133 of COCO panoptic. Names of COCO
            panoptic (with or without ``-other``, ``-merged``, ``-stuff``) keep their number, the others take numbers
            that are left.
        STUFF: xdecoder: those of CLASSES that are stuff (one segment per class) without being COCO panoptic's stuff.
        TOKENIZER: xdecoder: directory of CLIP's tokenizer; needed only for names that are not COCO panoptic's.
        RESIZE: xdecoder: how images are resized: ``evaluation`` (bilinear, rounded) or ``demo`` (bicubic, cut down).
            Empty: evaluation.
        SHORT_SIDE: xdecoder: wanted length of the shorter side, pixels. None is the rule's own: 800, demo 512.
        LONG_SIDE: xdecoder: most the longer side may have, pixels. None is the rule's own: 1333, demo no limit.
        BATCH_SIZE: images in one forward pass on a GPU; those of one prepared size share it, and fewer are filled up,
            so that no map depends on its batch. On a CPU it is always one.
        CACHE: folder of the maps that were made, found again by pixels and segmenter; ``off`` for none. Empty: of the
            user's cache folder, collavo/maps. Maps of precomputed and none are not kept there.
        CACHE_SIZE: most that this folder takes, GB; the least recently used maps are evicted.
    """

    NAME: str = ""
    PATH: PathText = ""
    ZOO_CONFIG: PathText = ""
    IMAGES: PathText = ""
    THRESHOLD: Fraction | None = None
    MASK_THRESHOLD: Fraction | None = None
    CLASSES: list[str] = field(default_factory=list)
    STUFF: list[str] = field(default_factory=list)
    TOKENIZER: PathText = ""
    RESIZE: Literal["", "evaluation", "demo"] = ""
    SHORT_SIDE: PositiveInt | None = None
    LONG_SIDE: PositiveInt | None = None
    BATCH_SIZE: PositiveInt = 4
    CACHE: PathText = ""
    CACHE_SIZE: Annotated[float, Field(gt=0)] = 4.0

    def resolved(self) -> SegmenterConfig:
        """The same with a name, a configuration and a rule where they are empty, and a path where one is known."""
        name = self.NAME or NAME
        path = self.PATH or (MASK2FORMER if name == NAME else "")
        return replace(
            self, NAME=name, PATH=path, ZOO_CONFIG=self.ZOO_CONFIG or ZOO_CONFIG, RESIZE=self.RESIZE or RESIZE
        )

    def thresholds(self, confidence: float, mask: float) -> tuple[float, float]:
        """``THRESHOLD`` and ``MASK_THRESHOLD``, or a backend's own where they are None.

        Args:
            confidence: the backend's own THRESHOLD.
            mask: its own MASK_THRESHOLD.
        """
        return (
            confidence if self.THRESHOLD is None else self.THRESHOLD,
            mask if self.MASK_THRESHOLD is None else self.MASK_THRESHOLD,
        )
