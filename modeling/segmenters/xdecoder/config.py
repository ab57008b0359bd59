"""Sizes of an X-Decoder, part by part, and the two public ones: `FOCAL_T` and `FOCAL_L`.

`to_dict` and `from_dict` are the layout of the ``config.json`` that lies next to a checkpoint of ours. Importing this
file loads no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.common.checked import dataclass_from_mapping

from ..errors import SegmenterError

NUM_STAGES = 4  # of the backbone: feature maps of strides 4, 8, 16, 32
NUM_LEVELS = 3  # maps that the decoder's queries attend to: strides 32, 16, 8
NORM_GROUPS = 32  # of every group norm of the pixel decoder
MOST_PADDING = 1024  # pixels that an image may be padded to a multiple of
LARGEST = 2**40  # of any number in a configuration


def _check_heads(part: str, name: str, width: int, num_heads: int) -> None:
    if num_heads < 1 or width % num_heads:
        raise SegmenterError(f"{part}.num_heads: {num_heads} does not divide {part}.{name} = {width}")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """FocalNet.

    Attributes:
        embed_dim: channels of the first stage; each later stage has twice as many.
        depths: blocks of each of the four stages.
        focal_levels: levels of context of each stage.
        focal_windows: side of the smallest context's kernel, in tokens, of each stage; odd.
        depthwise: the variant with 3x3 depth-wise convolutions in its blocks (Focal-T); without: Focal-L.
        mlp_ratio: hidden width of the MLPs over their width.
        layer_scale: initial value of the residual branches' factors.
    """

    embed_dim: int
    depths: tuple[int, ...]
    focal_levels: tuple[int, ...]
    focal_windows: tuple[int, ...]
    depthwise: bool
    mlp_ratio: float = 4.0
    layer_scale: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("depths", "focal_levels", "focal_windows"):
            values = getattr(self, name)
            if len(values) != NUM_STAGES or min(values) < 1:
                raise SegmenterError(f"backbone.{name}: {NUM_STAGES} counts of at least 1 are needed, not {values}")
        if any(window % 2 == 0 for window in self.focal_windows):
            raise SegmenterError(f"backbone.focal_windows: sides must be odd, not {self.focal_windows}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four stages' features, fine to coarse."""
        return tuple(self.embed_dim * 2**stage for stage in range(NUM_STAGES))


@dataclass(frozen=True, kw_only=True)
class PixelDecoderConfig:
    """Feature pyramid with a transformer on its coarsest map.

    Attributes:
        conv_dim: channels of the pyramid and of the transformer (C); a multiple of 32.
        mask_dim: channels of the mask features (M).
        num_layers: of the transformer.
        num_heads: of its attention.
        ffn_dim: hidden width of its feed-forward networks.
    """

    conv_dim: int = 512
    mask_dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048

    def __post_init__(self) -> None:
        if self.conv_dim % NORM_GROUPS:
            raise SegmenterError(f"pixel_decoder.conv_dim: {self.conv_dim} is no multiple of {NORM_GROUPS}")
        _check_heads("pixel_decoder", "conv_dim", self.conv_dim, self.num_heads)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Query decoder.

    Attributes:
        num_queries: object queries and, as the last one, the image query (Q).
        hidden_dim: width of the queries (C); a multiple of 4.
        embed_dim: width of the class embeddings, which are compared with those of the texts (D).
        num_layers: of cross-attention, self-attention and feed-forward network each (L).
        num_heads: of the attentions.
        ffn_dim: hidden width of the feed-forward networks.
    """

    num_queries: int = 101
    hidden_dim: int = 512
    embed_dim: int = 512
    num_layers: int = 9
    num_heads: int = 8
    ffn_dim: int = 2048

    def __post_init__(self) -> None:
        if self.num_queries < 2:
            raise SegmenterError(
                f"decoder.num_queries: {self.num_queries}; at least an object and the image are needed"
            )
        if self.hidden_dim % 4:
            raise SegmenterError(f"decoder.hidden_dim: {self.hidden_dim} is no multiple of 4 (position encoding)")
        _check_heads("decoder", "hidden_dim", self.hidden_dim, self.num_heads)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text encoder: a causal transformer over byte-pair tokens.

    Attributes:
        vocab_size: tokens known.
        context_length: tokens of a prompt, begin and end included; longer ones are cut.
        width: of the transformer.
        num_heads: of its attention.
        num_layers: of it.
        bos_id: token that begins a prompt.
        eos_id: token that ends it.
        pad_id: token that fills it up.
    """

    vocab_size: int = 49408
    context_length: int = 77
    width: int = 512
    num_heads: int = 8
    num_layers: int = 12
    bos_id: int = 49406
    eos_id: int = 49407
    pad_id: int = 49407

    def __post_init__(self) -> None:
        _check_heads("text", "width", self.width, self.num_heads)
        for name in ("bos_id", "eos_id", "pad_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise SegmenterError(f"text.{name}: {getattr(self, name)} is none of {self.vocab_size} tokens")


@dataclass(frozen=True, kw_only=True)
class XDecoderConfig:
    """A whole X-Decoder.

    Attributes:
        backbone: see `BackboneConfig`.
        pixel_decoder: see `PixelDecoderConfig`.
        decoder: see `DecoderConfig`.
        text: see `TextConfig`.
        pixel_mean: of red, green and blue, 0..255; taken from every pixel.
        pixel_std: of red, green and blue, 0..255; every pixel is divided by it.
        size_divisibility: heights and widths are padded to a multiple of this; itself a multiple of 32.
    """

    backbone: BackboneConfig
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    text: TextConfig = TextConfig()
    pixel_mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, ...] = (58.395, 57.12, 57.375)
    size_divisibility: int = 32

    def __post_init__(self) -> None:
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(self, name)) != 3:
                raise SegmenterError(f"{name}: three numbers are needed, not {getattr(self, name)}")
        if min(self.pixel_std) <= 0:
            raise SegmenterError(f"pixel_std: must be above 0, not {self.pixel_std}")
        if not 1 <= self.size_divisibility <= MOST_PADDING or self.size_divisibility % 32:
            raise SegmenterError(
                f"size_divisibility: {self.size_divisibility} is no multiple of 32, the largest stride, up to "
                f"{MOST_PADDING}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The layout of ``config.json``: dictionaries, lists and numbers, one entry per field."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> XDecoderConfig:
        """Read what `to_dict` wrote; fields left out have their defaults.

        Raises:
            SegmenterError: an unknown or missing key, or a value of another type; the message names it.
        """
        _check_numbers(values)
        return dataclass_from_mapping(cls, values, "", SegmenterError)


FOCAL_T = XDecoderConfig(
    backbone=BackboneConfig(
        embed_dim=96, depths=(2, 2, 6, 2), focal_levels=(3,) * 4, focal_windows=(3,) * 4, depthwise=True
    )
)
FOCAL_L = XDecoderConfig(
    backbone=BackboneConfig(
        embed_dim=192, depths=(2, 2, 18, 2), focal_levels=(4,) * 4, focal_windows=(3,) * 4, depthwise=False
    ),
    decoder=DecoderConfig(num_queries=201),
)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _check_numbers(values: Any, where: str = "") -> None:
    """Refuse numbers that are too large to be sizes of anything.

    Raises:
        SegmenterError: with the place of the first.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            _check_numbers(value, f"{where}.{key}" if where else str(key))
    elif isinstance(values, (list, tuple)):
        for index, value in enumerate(values):
            _check_numbers(value, f"{where}[{index}]")
    elif isinstance(values, (int, float)) and not -LARGEST < values < LARGEST:
        raise SegmenterError(f"{where}: out of range")
