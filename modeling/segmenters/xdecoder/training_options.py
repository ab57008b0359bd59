"""Settings of an X-Decoder's training, as the configuration names them; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from configs.common.field_types import Fraction, NonNegativeFloat, PositiveInt


@dataclass
class XDecoderTrainingConfig:
    """Stage ``segmenter``: an X-Decoder and what it is taught by. Its classes are those of ``DATA.PANOPTIC``.

    Attributes:
        SIZES: of a fresh model, where RESUME_FROM is empty: what the config.json of one holds; empty for Focal-T.
        VOCABULARY: of a fresh model's text encoder: clip: CLIP's 49408 tokens; classes: those of the classes' prompts
            alone, numbered anew, which keeps a small model small but lets it read no other names.
        TEMPLATES: how many of the 81 prompt templates are used; one per class is drawn for each update, and the mean
            over all of them is a class's embedding afterwards.
        LOGIT_SCALE: logarithm of what a fresh model multiplies cosines by.
        TRAIN_TEXT: train the text encoder too.
        BACKBONE_FACTOR: learning rate of the backbone over TRAIN.LR.
        CLASS_WEIGHT: of the class loss, and of its part in the matching.
        MASK_WEIGHT: of the masks' cross-entropy, also in the matching.
        DICE_WEIGHT: of the dice loss, also in the matching.
        NO_OBJECT: weight of queries without a segment in the class loss.
        FOCAL_GAMMA: exponent of the focal loss of classes; 0 for plain cross-entropy.
        POINTS: at which a mask is compared.
        OVERSAMPLE: candidates per point, of which those that a mask is least sure of are taken.
        IMPORTANCE: share of the points that are taken so; the rest is drawn evenly.
        SIDE: images become squares of so many pixels; a multiple of 32.
        SCALE: lowest and highest size, over SIDE, that an image is given at random before the square is cut out of it
            (or filled up); empty: its longer side becomes SIDE.
        FLIP: mirror every other image.
        DTYPE: of the forward pass, fp32 or bf16; weights are float32.
    """

    SIZES: dict[str, Any] = field(default_factory=dict)
    VOCABULARY: Literal["clip", "classes"] = "clip"
    TEMPLATES: PositiveInt = 81
    LOGIT_SCALE: float = 1.0
    TRAIN_TEXT: bool = True
    BACKBONE_FACTOR: NonNegativeFloat = 0.1
    CLASS_WEIGHT: NonNegativeFloat = 2.0
    MASK_WEIGHT: NonNegativeFloat = 5.0
    DICE_WEIGHT: NonNegativeFloat = 5.0
    NO_OBJECT: NonNegativeFloat = 0.1
    FOCAL_GAMMA: NonNegativeFloat = 0.0
    POINTS: PositiveInt = 12544
    OVERSAMPLE: Annotated[float, Field(ge=1)] = 3.0
    IMPORTANCE: Fraction = 0.75
    SIDE: Annotated[int, Field(ge=32, multiple_of=32)] = 1024
    SCALE: list[float] = field(default_factory=lambda: [0.1, 2.0])
    FLIP: bool = True
    DTYPE: Literal["fp32", "bf16"] = "bf16"

    @property
    def num_candidates(self) -> int:
        """Points of a mask among which the least certain are taken."""
        return int(self.POINTS * self.OVERSAMPLE)

    @property
    def num_uncertain(self) -> int:
        """Points taken among them."""
        return int(self.POINTS * self.IMPORTANCE)
