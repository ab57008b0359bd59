"""Mask2Former from transformers, with the post-processing of the released CoLLaVO.

Source: Cheng et al. 2022 (arXiv 2112.01527); the public COCO panoptic checkpoint with a Swin-L backbone. Nothing is
fused: two regions of sky are two segments, as the released model was trained with. The library's network takes a mask
of the padding and never looks at it in the pixel decoder, so only images of one processed size share a forward pass,
in blocks (see ``blocks.py``), and each has the map it would have alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from ..files import FileError, is_folder, read_object
from ..image import DecodedImage
from ..stored_tensor import out_of_range
from ..weight_files import describe
from .base import PanopticMap, check_finite, check_pixels
from .blocks import block_name, block_size, blocks, filled
from .coco import COCO_BY_INDEX, COCO_PANOPTIC
from .errors import SegmenterError
from .files import mask2former_folder, unusable_mask2former
from .options import SegmenterConfig
from .precomputed import renumber

_LARGEST, _MOST_PIXELS = 2**20, 2**14
"""Of sizes in a checkpoint's configuration, and of numbers in its image processor's."""


class Mask2FormerSegmenter:
    """Segments images with a Mask2Former.

    Args:
        model: in evaluation mode, on its device.
        processor: its image processor.
        threshold: least confidence of a segment.
        mask_threshold: least share of its own mask that a segment keeps.
        identity: of the weights, see `identity_of`.
        block: images in a forward pass; fewer are filled up.

    Raises:
        SegmenterError: its classes are not the 133 of COCO panoptic, in their order.
    """

    categories = COCO_BY_INDEX
    reads_maps = False

    def __init__(
        self, model: Any, processor: Any, threshold: float, mask_threshold: float, identity: str, block: int = 1
    ) -> None:
        self._model, self._processor = model, processor
        self._threshold, self._mask_threshold = threshold, mask_threshold
        self.block = block
        self.fingerprint = f"mask2former-{identity}-{threshold!r}-{mask_threshold!r}{block_name(block)}"
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
    def segment(self, decoded_images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`.

        Raises:
            SegmenterError: an image that is not RGB, or for which the network computes no finite scores; it is named.
        """
        prepared = [self._prepare(decoded) for decoded in decoded_images]
        maps: dict[int, PanopticMap] = {}
        for indices in blocks([tuple(pixels.shape) for pixels in prepared], self.block):
            members = [prepared[index] for index in filled(indices, self.block)]
            outputs = self._model(pixel_values=torch.cat(members).to(self._model.device, self._model.dtype))
            outputs.class_queries_logits = outputs.class_queries_logits[: len(indices)].float()
            outputs.masks_queries_logits = outputs.masks_queries_logits[: len(indices)].float()
            scores = zip(indices, outputs.class_queries_logits, outputs.masks_queries_logits, strict=True)
            for index, *logits in scores:
                check_finite(decoded_images[index].name, *logits)
            maps |= zip(indices, self.post_process(outputs, size), strict=True)
        return [maps[index] for index in range(len(decoded_images))]

    def _prepare(self, decoded: DecodedImage) -> Tensor:
        """Processed pixels of an image alone, (1, 3, height, width), without padding.

        Raises:
            SegmenterError: it is not RGB.
        """
        try:
            check_pixels(decoded.pixels)
        except ValueError as error:
            raise SegmenterError(f"image {decoded.name}: {error}") from error
        # said outright: an image of one or three pixels' height would be taken for one with channels first
        inputs = self._processor(images=[decoded.pixels], return_tensors="pt", input_data_format="channels_last")
        pixels: Tensor = inputs["pixel_values"]
        return pixels

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


def build_mask2former(config: SegmenterConfig, device: Any) -> Mask2FormerSegmenter:
    """Load a checkpoint by hub name or directory.

    Raises:
        SegmenterError: it is not on this machine and cannot be fetched, cannot be loaded, or has other classes.
    """
    config = config.resolved()
    folder = mask2former_folder(config)
    try:
        check_directory(folder)
        model, report = Mask2FormerForUniversalSegmentation.from_pretrained(
            folder, output_loading_info=True, local_files_only=True
        )
        processor = image_processor(folder)
        check_loaded(model, report, processor)
        model = model.eval().to(device)
    except Exception as error:  # changed files make the library fail in any way
        raise unusable_mask2former(config, str(error).strip().split("\n")[0]) from error
    block = block_size(config.BATCH_SIZE, device)
    return Mask2FormerSegmenter(model, processor, *config.thresholds(0.5, 0.95), identity_of(model, processor), block)


def image_processor(folder: Path) -> Any:
    """The image processor of a checkpoint's directory; the one that resizes with Pillow, where the library has two."""
    # without torchvision the plain processor's name, only looked up, warns and falls back to the one for Pillow
    pillow, plain = "Mask2FormerImageProcessorPil", "Mask2FormerImageProcessor"
    kind = getattr(transformers, pillow if hasattr(transformers, pillow) else plain)
    return kind.from_pretrained(folder, local_files_only=True)


def check_directory(path: Path) -> None:
    """Check a local checkpoint before anything is built of it; a name on the hub passes.

    Raises:
        FileError: a file is missing, damaged or a stand-in, or wants to run code, or the configuration is of a model
            that these weights cannot be.
    """
    if not is_folder(path):
        return
    config, prepared = read_object(path / "config.json"), read_object(path / "preprocessor_config.json")
    kinds = (sorted(path.glob(f"*{suffix}")) for suffix in (".safetensors", ".bin"))
    tensors = sum(len(describe(file)) for file in next(filter(None, kinds), []))
    for key, number in _numbers(config):
        if (key.endswith("layers") or key == "depths") and number > tensors:
            raise FileError(f"{path / 'config.json'}: {key} {number:g}, but {tensors} tensors")
        if key.endswith(("size", "dim", "queries", "points", "heads")) and number > _LARGEST:
            raise FileError(f"{path / 'config.json'}: {key} is out of range")
    for key, number in _numbers(prepared):
        if number > _MOST_PIXELS:
            raise FileError(f"{path / 'preprocessor_config.json'}: {key} is out of range")


def _numbers(values: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a JSON value, each with the name that it stands under."""
    if isinstance(values, Mapping):
        for name, inner in values.items():
            yield from _numbers(inner, name)
    elif isinstance(values, list):
        for inner in values:
            yield from _numbers(inner, key)
    elif isinstance(values, (int, float)):
        yield key, values


def check_loaded(model: Any, report: Mapping[str, Any], processor: Any) -> None:
    """Check that every weight came from the checkpoint and is a number, and that the processor makes pixels.

    Args:
        model: on the CPU.
        report: the library's, on what it loaded.
        processor: its image processor.

    Raises:
        ValueError: what is wrong.
    """
    missing = sorted(set(report["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if missing or report["mismatched_keys"]:
        first = missing[0] if missing else sorted(map(str, report["mismatched_keys"]))[0]
        raise ValueError(f"{first} is missing or of another shape")
    for name, parameter in model.named_parameters():
        if why := out_of_range(parameter, parameter.dtype):
            raise ValueError(f"{name} {why}")
    probe = processor(images=[np.zeros((32, 32, 3), np.uint8)], return_tensors="pt", input_data_format="channels_last")
    if not bool(torch.isfinite(probe["pixel_values"]).all()):
        raise ValueError("preprocessor_config.json makes no finite pixels")


_NOT_OF_MAPS = ("architectures", "dtype", "torch_dtype", "transformers_version")
"""Of a configuration: what says nothing of the maps."""


def identity_of(model: Any, processor: Any) -> str:
    """Digest of all weights, of the sizes and of the image preparation: the same wherever the checkpoint lies.

    Args:
        model: on any device.
        processor: its image processor.
    """
    settings = [
        {key: value for key, value in part.to_dict().items() if key not in _NOT_OF_MAPS and not key.startswith("_")}
        for part in (model.config, processor)
    ]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
