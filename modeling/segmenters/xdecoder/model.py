"""X-Decoder's network for panoptic segmentation: backbone, pixel decoder, query decoder, text encoder.

Source: Zou et al. 2022, "Generalized Decoding for Pixel, Image, and Language" (arXiv 2212.11270); the public models'
branches for captioning and retrieval are left out.

Shapes: B images, H and W the padded input's sides, Q queries, K classes, D width of class embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .config import XDecoderConfig
from .decoder import QueryDecoder, QueryPrediction
from .focalnet import FocalNet
from .pixel_decoder import PixelDecoder
from .text import TextEncoder


@dataclass(frozen=True, kw_only=True)
class XDecoderOutput:
    """What the network says of a batch.

    Attributes:
        logits: of the classes, background last, float32 (B, Q, K + 1).
        masks: logits, float32 (B, Q, H/4, W/4).
        auxiliary: the predictions before the first layer and after every layer but the last; empty unless asked for.
    """

    logits: Tensor
    masks: Tensor
    auxiliary: tuple[QueryPrediction, ...]


class XDecoder(nn.Module):
    """The network; class embeddings come from its text encoder, or from where they are kept.

    Args:
        config: sizes.
    """

    def __init__(self, config: XDecoderConfig) -> None:
        super().__init__()
        self.config = config
        pixel = config.pixel_decoder
        self.backbone = FocalNet(config.backbone)
        self.pixel_decoder = PixelDecoder(pixel, config.backbone.widths)
        self.decoder = QueryDecoder(config.decoder, pixel.conv_dim, pixel.mask_dim)
        self.text_encoder = TextEncoder(config.text, config.decoder.embed_dim)

    def forward(self, pixels: Tensor, class_embeddings: Tensor, auxiliary: bool = False) -> XDecoderOutput:
        """Segment a batch of images.

        Padding is not masked: an image padded beyond its own size gives other numbers than alone.

        Args:
            pixels: normalised RGB, padded with zeros at right and bottom (B, 3, H, W).
            class_embeddings: unit vectors, background last (K + 1, D).
            auxiliary: keep the earlier layers' predictions, as training needs them.

        Raises:
            ValueError: sides that are no multiples of the divisibility, or class embeddings of another width.
        """
        self._check(pixels, class_embeddings)
        features = self.pixel_decoder(self.backbone(pixels))
        earlier: list[QueryPrediction] = []
        for step in self.decoder(features, class_embeddings):
            last = step.prediction
            if auxiliary and step.blocked is not None:
                earlier.append(last)
        return XDecoderOutput(logits=last.logits, masks=last.masks, auxiliary=tuple(earlier))

    def _check(self, pixels: Tensor, class_embeddings: Tensor) -> None:
        multiple, width = self.config.size_divisibility, self.config.decoder.embed_dim
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % multiple or pixels.shape[3] % multiple:
            raise ValueError(f"pixels: (B, 3, multiple of {multiple}, same), not {tuple(pixels.shape)}; pad first")
        if class_embeddings.ndim != 2 or class_embeddings.shape[1] != width:
            raise ValueError(f"class embeddings: (K + 1, {width}), not {tuple(class_embeddings.shape)}")
