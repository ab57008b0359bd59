"""Mask2Former from transformers, with the post-processing of the released CoLLaVO.

Source: Cheng et al. 2022 (arXiv 2112.01527); the public COCO panoptic checkpoint with a Swin-L backbone. Nothing is
fused: two regions of sky are two segments, as the released model was trained with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Mask2FormerForUniversalSegmentation

from .base import PanopticMap, Picture, check_pixels
from .coco import COCO_PANOPTIC
from .errors import SegmenterError
from .options import SegmenterConfig
from .precomputed import renumber


class Mask2FormerSegmenter:
    """Segments pictures with a Mask2Former.

    Args:
        model: in evaluation mode, on its device.
        processor: its image processor.
        threshold: least confidence of a segment.
        mask_threshold: least share of its own mask that a segment keeps.
        identity: of the weights.

    Raises:
        SegmenterError: its classes are not the 133 of COCO panoptic, in their order.
    """

    def __init__(self, model: Any, processor: Any, threshold: float, mask_threshold: float, identity: str) -> None:
        self._model, self._processor = model, processor
        self._threshold, self._mask_threshold = threshold, mask_threshold
        self.fingerprint = f"mask2former-{identity}-{threshold:g}-{mask_threshold:g}"
        labels = {int(index): name for index, name in model.config.id2label.items()}
        wrong = [i for i, category in enumerate(COCO_PANOPTIC) if labels.get(i) != category.name]
        if wrong or len(labels) != len(COCO_PANOPTIC):
            first = wrong[0] if wrong else len(COCO_PANOPTIC)
            expected = COCO_PANOPTIC[first].name if wrong else "nothing"
            raise SegmenterError(
                f"SEGMENTER.PATH: the checkpoint's {len(labels)} classes are not those of COCO panoptic: "
                f"class {first} is {labels.get(first)!r}, not {expected!r}"
            )

    @torch.inference_mode()
    def segment(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`.

        Raises:
            SegmenterError: a picture that is not RGB; it is named.
        """
        if not pictures:
            return []
        for picture in pictures:
            try:
                check_pixels(picture.pixels)
            except ValueError as error:
                raise SegmenterError(f"picture {picture.name}: {error}") from error
        images = [picture.pixels for picture in pictures]
        # said outright: a picture of one or three pixels' height would be taken for one with channels first
        inputs = self._processor(images=images, return_tensors="pt", input_data_format="channels_last")
        pixels = inputs["pixel_values"].to(self._model.device, self._model.dtype)
        outputs = self._model(pixel_values=pixels, pixel_mask=inputs["pixel_mask"].to(self._model.device))
        outputs.class_queries_logits = outputs.class_queries_logits.float()
        outputs.masks_queries_logits = outputs.masks_queries_logits.float()
        return self.post_process(outputs, size)

    def post_process(self, outputs: Any, size: tuple[int, int]) -> list[PanopticMap]:
        """Turn class and mask logits (float32) into maps of a size."""
        found = self._processor.post_process_panoptic_segmentation(
            outputs,
            threshold=self._threshold,
            mask_threshold=self._mask_threshold,
            label_ids_to_fuse=set(),
            target_sizes=[size] * len(outputs.class_queries_logits),
        )
        return [_map(item) for item in found]


def _map(item: dict[str, Any]) -> PanopticMap:
    """The library's result as ours; where nothing is found its map is -1 everywhere."""
    ids = item["segmentation"].cpu().numpy().astype(np.int64)
    infos = item["segments_info"]
    return renumber(ids, [(int(s["id"]), int(s["label_id"])) for s in infos], [float(s["score"]) for s in infos])


def build(config: SegmenterConfig, device: Any = "cpu") -> Mask2FormerSegmenter:
    """Load a checkpoint by hub name or directory.

    Raises:
        SegmenterError: it cannot be loaded, or has other classes.
    """
    config = config.resolved()
    # without torchvision the plain processor name warns and falls back to this one
    kind = getattr(transformers, "Mask2FormerImageProcessorPil", transformers.Mask2FormerImageProcessor)
    try:
        model = Mask2FormerForUniversalSegmentation.from_pretrained(config.PATH).eval().to(device)
        processor = kind.from_pretrained(config.PATH)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise SegmenterError(
            f"SEGMENTER.PATH: Mask2Former '{config.PATH}' cannot be loaded ({reason}). Without a network, download "
            "config.json, preprocessor_config.json and model.safetensors of that name elsewhere and set SEGMENTER.PATH "
            "to their directory, or choose SEGMENTER.NAME precomputed or none."
        ) from error
    return Mask2FormerSegmenter(model, processor, *config.thresholds(0.5, 0.95), _identity(model))


def _identity(model: Any) -> str:
    """Digest of a sample of every parameter: the same for the same weights, wherever they lie."""
    digest = hashlib.sha256()
    for name, parameter in model.state_dict().items():
        sample = parameter.flatten()[:: max(1, parameter.numel() // 64)].float().cpu().numpy()
        digest.update(name.encode() + sample.tobytes())
    return digest.hexdigest()[:16]
