"""Sizes of an X-Decoder, one dataclass per part, and the two public sizes with a FocalNet backbone.

A model of ours lies in a directory with ``config.json``, which `XDecoderConfig.to_dict` fills and `from_dict` reads.
Full sizes: the public configurations ``focalt_unicl_lang`` and ``focall_unicl_lang`` of X-Decoder (Zou et al. 2022,
arXiv 2212.11270). This module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from ..errors import SegmenterError

GROUP_NORM_GROUPS = 32  # of every convolution of the pixel decoder, at any width
NUM_STAGES = 4  # of the backbone: strides 4, 8, 16, 32

_Section = TypeVar("_Section")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise SegmenterError(f"X-Decoder configuration: {what}")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """FocalNet (Yang et al. 2022, arXiv 2203.11926).

    Attributes:
        embed_dim: channels of the first stage (E); each further stage doubles them.
        depths: blocks per stage.
        focal_levels: focal levels of the modulation, per stage.
        focal_windows: kernel side of the first focal level, per stage; each further level adds 2; odd.
        depthwise: blocks with depth-wise convolutions and norms after each sum (Focal-T of X-Decoder), or without
            (Focal-L). The stem's padding differs too.
        mlp_ratio: hidden width of a block's MLP over its channels.
        layer_scale_init: start value of the residual scales, for training from scratch.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    focal_levels: tuple[int, ...] = (3, 3, 3, 3)
    focal_windows: tuple[int, ...] = (3, 3, 3, 3)
    depthwise: bool = True
    mlp_ratio: float = 4.0
    layer_scale_init: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("depths", "focal_levels", "focal_windows"):
            value = getattr(self, name)
            _require(len(value) == NUM_STAGES, f"backbone.{name} is {value}; give one number for each of 4 stages")
        _require(all(w % 2 for w in self.focal_windows), f"backbone.focal_windows {self.focal_windows} must be odd")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of ``res2`` to ``res5``: E, 2E, 4E, 8E."""
        return tuple(self.embed_dim * 2**stage for stage in range(NUM_STAGES))


@dataclass(frozen=True, kw_only=True)
class PixelDecoderConfig:
    """Feature pyramid with a transformer encoder on the coarsest map.

    Attributes:
        hidden_dim: channels of the pyramid (C); a multiple of 32 (group norm) and of 4 (position encoding).
        mask_dim: channels of the mask features (M).
        num_layers: of the transformer encoder.
        num_heads: of its attention.
        ffn_dim: hidden width of its feed-forward layers.
    """

    hidden_dim: int = 512
    mask_dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048

    def __post_init__(self) -> None:
        width, heads = self.hidden_dim, self.num_heads
        _require(width % GROUP_NORM_GROUPS == 0, f"pixel_decoder.hidden_dim {width} is no multiple of 32")
        _require(width % heads == 0, f"pixel_decoder.hidden_dim {width} is no multiple of num_heads {heads}")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Query decoder.

    Attributes:
        hidden_dim: width of the queries; a multiple of 4 (position encoding).
        class_dim: width of the class embeddings (D).
        num_queries: object queries and one image query (Q).
        num_heads: of all attention.
        ffn_dim: hidden width of the feed-forward layers.
        num_layers: decoder layers; predictions come before the first and after each.
    """

    hidden_dim: int = 512
    class_dim: int = 512
    num_queries: int = 101
    num_heads: int = 8
    ffn_dim: int = 2048
    num_layers: int = 9

    def __post_init__(self) -> None:
        width, heads = self.hidden_dim, self.num_heads
        _require(width % heads == 0, f"decoder.hidden_dim {width} is no multiple of num_heads {heads}")
        _require(width % 4 == 0, f"decoder.hidden_dim {width} is no multiple of 4")
        _require(self.num_queries > 1, "decoder.num_queries counts the image query and needs at least one object query")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text encoder and its tokens.

    Attributes:
        vocab_size: tokens.
        context_length: most tokens of a prompt, with start and end.
        width: of the states.
        num_heads: of the attention.
        num_layers: transformer blocks.
        bos_id: start token.
        eos_id: end token; the largest id.
        pad_id: padding token.
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
        _require(
            self.width % self.num_heads == 0, f"text.width {self.width} is no multiple of num_heads {self.num_heads}"
        )


@dataclass(frozen=True, kw_only=True)
class XDecoderConfig:
    """A whole X-Decoder.

    Attributes:
        backbone: see `BackboneConfig`.
        pixel_decoder: see `PixelDecoderConfig`.
        decoder: see `DecoderConfig`.
        text: see `TextConfig`.
        pixel_mean: subtracted from RGB values 0..255.
        pixel_std: divides the difference.
        size_divisibility: height and width are padded up to a multiple of this, in pixels.
    """

    backbone: BackboneConfig = BackboneConfig()
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    text: TextConfig = TextConfig()
    pixel_mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, ...] = (58.395, 57.12, 57.375)
    size_divisibility: int = 32

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts, for ``config.json``."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> XDecoderConfig:
        """Read what `to_dict` gave; keys that are left out keep their defaults, Focal-T's.

        Raises:
            SegmenterError: an unknown key, or sizes that do not fit together.
        """
        parts = {name: _read(kind, values.get(name, {}), f"{name}.") for name, kind in _SECTIONS.items()}
        return _read(cls, {**values, **parts}, "")


_SECTIONS: dict[str, type[Any]] = {
    "backbone": BackboneConfig,
    "pixel_decoder": PixelDecoderConfig,
    "decoder": DecoderConfig,
    "text": TextConfig,
}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _read(kind: type[_Section], values: Mapping[str, Any], prefix: str) -> _Section:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # every section is a dataclass
    unknown = [prefix + key for key in values if key not in known]
    _require(not unknown, f"unknown key {', '.join(unknown)}; {prefix or 'the top level'} knows {sorted(known)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


FOCAL_T = XDecoderConfig()
FOCAL_L = XDecoderConfig(
    backbone=BackboneConfig(embed_dim=192, depths=(2, 2, 18, 2), focal_levels=(4, 4, 4, 4), depthwise=False),
    decoder=DecoderConfig(num_queries=201),
)
