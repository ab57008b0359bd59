"""X-Decoder behind the segmenter interface: prepare images, run the network, make panoptic maps.

Padding is not masked in this network, so an image's map depends on how far it is padded. Images share a forward pass
only where their padded sizes are equal, in blocks (see ``../blocks.py``), and so each has the map it would have alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ...image import DecodedImage
from ..base import PanopticMap, check_finite, check_pixels
from ..blocks import block_name, block_size, blocks, filled
from ..coco import Category
from ..errors import SegmenterError
from ..options import SegmenterConfig
from .checkpoint import load_model
from .model import XDecoder
from .postprocess import MaskSizes, SegmentRules, panoptic_map
from .preprocess import ResizeRule, normalise_and_pad, padded_size
from .vocabulary import Vocabulary, make_vocabulary

THRESHOLD, OVERLAP = 0.8, 0.8  # of the reference's panoptic evaluation


class XDecoderSegmenter:
    """Segments images with an X-Decoder.

    Args:
        model: in evaluation mode, float32, on its device; its text encoder is not used.
        vocabulary: the classes it looks for, with their embeddings on the same device.
        resize: how images are resized.
        threshold: probability that a segment's class must exceed.
        overlap: least share of its own mask that a segment must win.
        block: images in a forward pass; fewer are filled up.
        identity: of the weights.
    """

    reads_maps = False

    def __init__(
        self,
        model: XDecoder,
        vocabulary: Vocabulary,
        *,
        resize: ResizeRule,
        threshold: float = THRESHOLD,
        overlap: float = OVERLAP,
        block: int = 1,
        identity: str,
    ) -> None:
        self._model, self._vocabulary, self._resize = model, vocabulary, resize
        self.block = block
        self._rules = SegmentRules(is_thing=vocabulary.classes.is_thing, threshold=threshold, overlap=overlap)
        settings = [identity, vocabulary.identity, asdict(vocabulary.classes), asdict(resize), threshold, overlap]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        self.fingerprint = f"xdecoder-{digest}{block_name(block)}"

    @property
    def categories(self) -> Mapping[int, Category]:
        """What the numbers in `Segment.category_id` stand for."""
        return self._vocabulary.classes.categories

    @torch.inference_mode()
    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`.

        Raises:
            SegmenterError: an image that is not RGB, cannot be resized, or for which the network computes no finite
                scores; it is named.
        """
        padded = [self._padded(image) for image in images]
        maps: dict[int, PanopticMap] = {}
        for indices in blocks(padded, self.block):
            members = [images[index] for index in indices]
            maps |= zip(indices, self._segment(members, padded[indices[0]], size), strict=True)
        return [maps[index] for index in range(len(images))]

    def _padded(self, image: DecodedImage) -> tuple[int, int]:
        """Height and width of an image when it is resized and padded.

        Raises:
            SegmenterError: it is not RGB, or cannot be resized.
        """
        try:
            check_pixels(image.pixels)
            resized = self._resize.size(*image.pixels.shape[:2])
        except ValueError as error:
            raise SegmenterError(f"image {image.name}: {error}") from error
        return padded_size(resized, self._model.config.size_divisibility)

    def _segment(
        self, images: Sequence[DecodedImage], padded: tuple[int, int], size: tuple[int, int]
    ) -> Iterator[PanopticMap]:
        """Segment images of one padded size in one forward pass."""
        config, vectors = self._model.config, self._vocabulary.vectors
        resized = [self._resize.resize(image.pixels) for image in images]
        pixels = normalise_and_pad(resized, config.pixel_mean, config.pixel_std, padded)
        output = self._model(pixels[filled(range(len(pixels)), self.block)].to(vectors.device), vectors)
        for image, side, logits, masks in zip(images, resized, output.logits, output.masks, strict=False):
            check_finite(image.name, logits, masks)
            sizes = MaskSizes(padded=padded, image=(side.shape[0], side.shape[1]), result=size)
            yield self._numbered(panoptic_map(logits, masks, self._rules, sizes))

    def _numbered(self, panoptic: PanopticMap) -> PanopticMap:
        """Replace indices into the list of classes by the numbers that segments carry."""
        numbers = self._vocabulary.classes.numbers
        segments = (replace(segment, category_id=numbers[segment.category_id]) for segment in panoptic.segments)
        return PanopticMap(panoptic.id_map, tuple(segments))


def build_xdecoder(config: SegmenterConfig, device: Any) -> XDecoderSegmenter:
    """Load a checkpoint, embed the classes once, and let the text encoder go.

    Raises:
        SegmenterError: a setting, the checkpoint, or the classes are no good.
    """
    try:
        resize = ResizeRule.named(config.resolved().RESIZE, config.SHORT_SIDE, config.LONG_SIDE)
    except ValueError as error:
        raise SegmenterError(f"SEGMENTER.RESIZE, SHORT_SIDE, LONG_SIDE: {error}") from error
    loaded = load_model(Path(config.PATH))
    vocabulary = make_vocabulary(loaded, config.CLASSES, config.STUFF, config.TOKENIZER, device)
    if loaded.has_text_encoder:
        del loaded.model.text_encoder
    threshold, overlap = config.thresholds(THRESHOLD, OVERLAP)
    return XDecoderSegmenter(
        loaded.model.to(device),
        vocabulary,
        resize=resize,
        threshold=threshold,
        overlap=overlap,
        block=block_size(config.BATCH_SIZE, device),
        identity=loaded.digest,
    )
