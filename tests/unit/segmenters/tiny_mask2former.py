"""A random Mask2Former of some thousand weights, for tests."""

from pathlib import Path

import torch
import transformers
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from modeling.segmenters.coco import COCO_PANOPTIC


def save_tiny_mask2former(folder: Path) -> Path:
    """Write it as any checkpoint is; the folder again."""
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=2,
        id2label={i: c.name for i, c in enumerate(COCO_PANOPTIC)},
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=20.0)  # so that some queries are confident
    model.save_pretrained(folder)
    pillow, plain = "Mask2FormerImageProcessorPil", "Mask2FormerImageProcessor"
    kind = getattr(transformers, pillow if hasattr(transformers, pillow) else plain)
    kind(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder
