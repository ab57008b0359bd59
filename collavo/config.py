"""Sizes of a CoLLaVO, each declared once or derived."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig

from modeling.internlm2 import InternLM2Config
from modeling.segmenters.coco import NUM_CLASSES
from modeling.vit import VisionTowerConfig

from .crayon import MAX_INSTANCES


class CoLLaVOConfig(PreTrainedConfig):
    """A whole model; the defaults are the released CoLLaVO-7B.

    Attributes:
        text_config: the decoder.
        vision_config: the vision tower.
        crayon_width: width of the semantic and numbering queries.
        semantic_rows: rows of the semantic table: unknown and the classes.
        numbering_rows: rows of the numbering table: unknown and the counts.
        image_token_id: id of ``<image>``; each one in a prompt is replaced by all image tokens.
        image_size: side in pixels that images are resized to.
        crayon_queries: which queries act: ``both``, ``semantic``, or ``none`` (the paper's ablation).
    """

    model_type = "collavo"
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {
        "text_config": InternLM2Config,
        "vision_config": VisionTowerConfig,
    }

    text_config: dict[str, Any] | InternLM2Config | None = None
    vision_config: dict[str, Any] | VisionTowerConfig | None = None
    crayon_width: int = 1024
    semantic_rows: int = NUM_CLASSES + 1
    numbering_rows: int = MAX_INSTANCES + 1
    image_token_id: int = 92544
    image_size: int = 490
    crayon_queries: str = "both"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn plain mappings (as read from JSON) into the parts' configurations."""
        if not isinstance(self.text_config, InternLM2Config):
            self.text_config = InternLM2Config(**(self.text_config or {}))
        if not isinstance(self.vision_config, VisionTowerConfig):
            self.vision_config = VisionTowerConfig(**(self.vision_config or {}))
        super().__post_init__(**kwargs)

    @property
    def text(self) -> InternLM2Config:
        """The decoder's sizes."""
        if not isinstance(self.text_config, InternLM2Config):
            raise TypeError("text_config is no InternLM2Config")
        return self.text_config

    @property
    def vision(self) -> VisionTowerConfig:
        """The vision tower's sizes."""
        if not isinstance(self.vision_config, VisionTowerConfig):
            raise TypeError("vision_config is no VisionTowerConfig")
        return self.vision_config

    @property
    def grid(self) -> int:
        """Image tokens a side: 490 px / 14 px = 35."""
        return self.image_size // self.vision.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Image tokens of an image: 35 * 35 = 1,225."""
        return self.grid**2
