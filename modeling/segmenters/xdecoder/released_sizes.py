"""The sizes of a released X-Decoder, read from its tensors' shapes.

Released files carry no configuration. All that shapes do not show is the number of attention heads, which is 8 in every
public model with a FocalNet backbone, and what is the same in all of them (`XDecoderConfig`'s defaults).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import SegmenterError
from .config import NUM_STAGES, BackboneConfig, DecoderConfig, PixelDecoderConfig, TextConfig, XDecoderConfig

PUBLIC_NUM_HEADS = 8

Shapes = Mapping[str, tuple[int, ...]]

_PIXEL = "sem_seg_head.pixel_decoder"
_QUERY = "sem_seg_head.predictor"
_TEXT = f"{_QUERY}.lang_encoder.lang_encoder"


def released_sizes(shapes: Shapes, file: Path, num_heads: int = PUBLIC_NUM_HEADS) -> XDecoderConfig:
    """Read all sizes.

    Args:
        shapes: of the tensors, by their released names.
        file: named in errors.
        num_heads: of every attention; no shape shows it.

    Raises:
        SegmenterError: a tensor that shows a size is missing; or sizes that do not go together.
    """
    try:
        return XDecoderConfig(
            backbone=_backbone(shapes),
            pixel_decoder=_pixel_decoder(shapes, num_heads),
            decoder=_decoder(shapes, num_heads),
            text=_text(shapes, num_heads),
        )
    except KeyError as error:
        raise SegmenterError(
            f"SEGMENTER.PATH: {file}: {error.args[0]} is missing; expected the weights of an X-Decoder with a FocalNet "
            "backbone (xdecoder_focalt, xdecoder_focall)"
        ) from error
    except (SegmenterError, ValueError, IndexError, TypeError) as error:
        raise SegmenterError(f"SEGMENTER.PATH: {file}: its shapes are not an X-Decoder's ({error})") from error


def _backbone(shapes: Shapes) -> BackboneConfig:
    embed_dim = shapes["backbone.patch_embed.proj.weight"][0]
    stages = [f"backbone.layers.{stage}.blocks" for stage in range(NUM_STAGES)]
    contexts = [rf"{stage}.0.modulation.focal_layers" for stage in stages]
    return BackboneConfig(
        embed_dim=embed_dim,
        depths=tuple(_count(shapes, stage) for stage in stages),
        focal_levels=tuple(_count(shapes, context) for context in contexts),
        focal_windows=tuple(shapes[f"{context}.0.0.weight"][-1] for context in contexts),
        depthwise=any(".dw1." in key for key in shapes),
        mlp_ratio=shapes[f"{stages[0]}.0.mlp.fc1.weight"][0] / embed_dim,
    )


def _pixel_decoder(shapes: Shapes, num_heads: int) -> PixelDecoderConfig:
    return PixelDecoderConfig(
        conv_dim=shapes[f"{_PIXEL}.input_proj.weight"][0],
        mask_dim=shapes[f"{_PIXEL}.mask_features.weight"][0],
        num_layers=_count(shapes, f"{_PIXEL}.transformer.encoder.layers"),
        num_heads=num_heads,
        ffn_dim=shapes[f"{_PIXEL}.transformer.encoder.layers.0.linear1.weight"][0],
    )


def _decoder(shapes: Shapes, num_heads: int) -> DecoderConfig:
    num_queries, hidden_dim = shapes[f"{_QUERY}.query_feat.weight"]
    return DecoderConfig(
        num_queries=num_queries,
        hidden_dim=hidden_dim,
        embed_dim=shapes[f"{_QUERY}.class_embed"][1],
        num_layers=_count(shapes, f"{_QUERY}.transformer_cross_attention_layers"),
        num_heads=num_heads,
        ffn_dim=shapes[f"{_QUERY}.transformer_ffn_layers.0.linear1.weight"][0],
    )


def _text(shapes: Shapes, num_heads: int) -> TextConfig:
    vocab_size, width = shapes[f"{_TEXT}.token_embedding.weight"]
    return TextConfig(
        vocab_size=vocab_size,
        context_length=shapes[f"{_TEXT}.positional_embedding"][0],
        width=width,
        num_layers=_count(shapes, f"{_TEXT}.resblocks"),
        num_heads=num_heads,
        bos_id=vocab_size - 2,  # CLIP's vocabulary ends with its two special tokens
        eos_id=vocab_size - 1,
        pad_id=vocab_size - 1,
    )


def _count(shapes: Shapes, prefix: str) -> int:
    """Number of modules ``prefix.0``, ``prefix.1`` and so on.

    Raises:
        KeyError: there is none.
    """
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    numbers = {int(match.group(1)) for match in map(pattern.match, shapes) if match}
    if not numbers:
        raise KeyError(f"{prefix}.0")
    return max(numbers) + 1
