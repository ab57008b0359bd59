"""A random X-Decoder of some thousand weights, for tests."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from modeling.segmenters.coco import COCO_PANOPTIC
from modeling.segmenters.xdecoder.checkpoint import KeptEmbeddings, save_model, text_digest
from modeling.segmenters.xdecoder.config import (
    BackboneConfig,
    DecoderConfig,
    PixelDecoderConfig,
    TextConfig,
    XDecoderConfig,
)
from modeling.segmenters.xdecoder.model import XDecoder

CONFIG = XDecoderConfig(
    backbone=BackboneConfig(
        embed_dim=8, depths=(1, 2, 1, 1), focal_levels=(2, 1, 2, 3), focal_windows=(3, 5, 3, 3), depthwise=True
    ),
    pixel_decoder=PixelDecoderConfig(conv_dim=64, mask_dim=16, num_layers=1, num_heads=8, ffn_dim=40),
    decoder=DecoderConfig(num_queries=6, hidden_dim=32, embed_dim=24, num_layers=2, num_heads=8, ffn_dim=48),
    text=TextConfig(context_length=16, width=16, num_heads=8, num_layers=1),
)


def tiny_xdecoder(config: XDecoderConfig = CONFIG, seed: int = 0) -> XDecoder:
    """A model whose queries are confident of some class, or maps would be empty and prove little."""
    torch.manual_seed(seed)
    model = XDecoder(config).eval()
    for parameter in (model.decoder.query_start, model.decoder.query_position, model.decoder.head.class_projection):
        torch.nn.init.normal_(parameter)
    torch.nn.init.constant_(model.decoder.head.logit_scale, math.log(30))
    return model


def random_embeddings(model: XDecoder) -> KeptEmbeddings:
    """Vectors for the classes of COCO panoptic that no text encoder made."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(len(COCO_PANOPTIC) + 1, model.config.decoder.embed_dim, generator=generator)
    return KeptEmbeddings(
        classes=tuple(c.name for c in COCO_PANOPTIC),
        stuff=tuple(c.name for c in COCO_PANOPTIC if not c.is_thing),
        vectors=F.normalize(vectors, dim=-1),
        text_digest=text_digest(model.state_dict()),
    )


def save_tiny_xdecoder(folder: Path) -> Path:
    """Write a directory with the model and such embeddings; the folder again."""
    model = tiny_xdecoder()
    save_model(folder, model, random_embeddings(model))
    return folder
