"""X-Decoder behind the segmenter interface: prepare images, run the network, make panoptic maps.

Padding is not masked in this network, so an image's map depends on how far it is padded. Images share a forward pass
only where their padded sizes are equal, and so each has the map it would have alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..base import DecodedImage, PanopticMap, check_finite, check_pixels
from ..coco import Category
from ..errors import SegmenterError
from ..options import SegmenterConfig
from .checkpoint import load_model
from .model import XDecoder
from .postprocess import Rules, Sizes, panoptic_map
from .preprocess import ResizeRule, padded_size, prepare
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
        batch_size: most images in one forward pass.
        identity: of the weights.
    """

    def __init__(
        self,
        model: XDecoder,
        vocabulary: Vocabulary,
        *,
        resize: ResizeRule,
        threshold: float = THRESHOLD,
        overlap: float = OVERLAP,
        batch_size: int = 4,
        identity: str,
    ) -> None:
        self._model, self._vocabulary, self._resize = model, vocabulary, resize
        self._batch_size = batch_size
        self._rules = Rules(is_thing=vocabulary.classes.is_thing, threshold=threshold, overlap=overlap)
        settings = [identity, vocabulary.identity, asdict(vocabulary.classes), asdict(resize), threshold, overlap]
        self.fingerprint = f"xdecoder-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]}"

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
        maps: dict[int, PanopticMap] = {}
        for padded, batch in self._batches(images):
            maps |= zip(batch, self._segment([images[index] for index in batch], padded, size), strict=True)
        return [maps[index] for index in range(len(images))]

    def _batches(self, images: Sequence[DecodedImage]) -> Iterator[tuple[tuple[int, int], list[int]]]:
        """Padded sizes, each with the indices of at most ``batch_size`` images of that size."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            try:
                check_pixels(image.pixels)
                resized = self._resize.size(*image.pixels.shape[:2])
            except ValueError as error:
                raise SegmenterError(f"image {image.name}: {error}") from error
            groups[padded_size(resized, self._model.config.size_divisibility)].append(index)
        for padded, indices in groups.items():
            for start in range(0, len(indices), self._batch_size):
                yield padded, indices[start : start + self._batch_size]

    def _segment(
        self, images: Sequence[DecodedImage], padded: tuple[int, int], size: tuple[int, int]
    ) -> Iterator[PanopticMap]:
        """Segment images of one padded size in one forward pass."""
        config, vectors = self._model.config, self._vocabulary.vectors
        resized = [self._resize.resize(image.pixels) for image in images]
        pixels = prepare(resized, config.pixel_mean, config.pixel_std, padded).to(vectors.device)
        output = self._model(pixels, vectors)
        for image, side, logits, masks in zip(images, resized, output.logits, output.masks, strict=True):
            check_finite(image.name, logits, masks)
            sizes = Sizes(padded=padded, image=(side.shape[0], side.shape[1]), result=size)
            yield self._numbered(panoptic_map(logits, masks, self._rules, sizes))

    def _numbered(self, panoptic: PanopticMap) -> PanopticMap:
        """Replace indices into the list of classes by the numbers that segments carry."""
        numbers = self._vocabulary.classes.numbers
        segments = (replace(segment, category_id=numbers[segment.category_id]) for segment in panoptic.segments)
        return PanopticMap(panoptic.id_map, tuple(segments))


def build(config: SegmenterConfig, device: Any = "cpu") -> XDecoderSegmenter:
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
        batch_size=config.BATCH_SIZE,
        identity=loaded.digest,
    )
