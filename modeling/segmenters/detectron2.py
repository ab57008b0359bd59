"""Panoptic FPN from detectron2's model zoo, with the library's own image preparation and post-processing.

Source: Kirillov et al. 2019 (arXiv 1901.02446). The library is optional and imported when a segmenter is built. A map
is made at the image's own size, in whose pixels the library counts areas, and brought to the asked size by taking the
pixel at the middle of every cell; segments that no cell shows are left out. Padding is not masked in this network, so
only images of one prepared size share a forward pass, in blocks (see ``blocks.py``), and each has the map it would
have alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from configs.common.words import some_of

from ..files import check_real
from ..image import DecodedImage
from ..torch_archive import load_described, named_tensors, read_archive
from ..weight_files import load
from .base import PanopticMap, check_finite, check_pixels
from .blocks import block_name, block_size, blocks, filled
from .coco import COCO_BY_INDEX, coco_index
from .errors import SegmenterError
from .files import HOW_TO_BUILD
from .options import SegmenterConfig
from .precomputed import at_cell_centres, renumber

_FEW = 4
"""Names in a message."""
ARCHITECTURE = "PanopticFPN"
INSTANCES = "things"
"""What the zoo's stuff classes call all things together; such places are no segment."""
# in files of older versions, and made from the configuration by newer ones, or the other way round
MADE_FROM_CONFIGURATION = ("pixel_mean", "pixel_std", ".cell_anchors.")
# all that a pickled dictionary of arrays needs; anything else in a file could run code
HARMLESS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"{package}.multiarray", name)
        for package in ("numpy.core", "numpy._core")
        for name in ("_reconstruct", "scalar")
    ),
}

logger = logging.getLogger(__name__)


class Detectron2Segmenter:
    """Segments images with a panoptic model of detectron2.

    Args:
        model: in evaluation mode, on its device.
        resize: the library's ``ResizeShortestEdge``.
        channels: order of the channels that the model reads, ``RGB`` or ``BGR``.
        things: our category of each thing class of the model.
        stuff: our category of each stuff class; None for a class that is no segment.
        block: images in a forward pass; fewer are filled up.
        fingerprint: see `Segmenter.fingerprint`; the block is added.
    """

    categories = COCO_BY_INDEX
    reads_maps = False

    def __init__(
        self,
        model: Any,
        resize: Any,
        channels: str,
        things: Sequence[int | None],
        stuff: Sequence[int | None],
        *,
        block: int = 1,
        fingerprint: str,
    ) -> None:
        self._model, self._resize, self._channels = model, resize, channels
        self._things, self._stuff = things, stuff
        self.block = block
        self.fingerprint = f"{fingerprint}{block_name(block)}"

    @torch.inference_mode()
    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`.

        Raises:
            SegmenterError: an image that is not RGB, cannot be resized, or for which the network computes no finite
                scores; it is named.
        """
        prepared = [self._prepare(decoded) for decoded in images]
        maps: dict[int, PanopticMap] = {}
        for indices in blocks([tuple(item["image"].shape) for item in prepared], self.block):
            outputs = self._model([prepared[index] for index in filled(indices, self.block)])
            for index, output in zip(indices, outputs, strict=False):
                if "sem_seg" in output:  # boxes that are not finite are left out by the library without a word
                    check_finite(images[index].name, output["sem_seg"])
                ids, infos = output["panoptic_seg"]
                maps[index] = self._map(ids, infos, size)
        return [maps[index] for index in range(len(images))]

    def _prepare(self, decoded: DecodedImage) -> dict[str, Any]:
        """An image as the library's models take it; the size is that of the map they shall make."""
        try:
            check_pixels(decoded.pixels)
            pixels = decoded.pixels if self._channels == "RGB" else decoded.pixels[:, :, ::-1]
            resized = self._resize.get_transform(pixels).apply_image(pixels)
        except ValueError as error:  # so Pillow says, too, that a side would shrink to nothing
            shape = decoded.pixels.shape
            raise SegmenterError(f"image {decoded.name}, {shape}, cannot be resized: {error}") from error
        image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.float32))
        return {"image": image, "height": pixels.shape[0], "width": pixels.shape[1]}

    def _map(self, ids: Tensor, infos: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> PanopticMap:
        """The library's map (H, W) and list of segments as ours."""
        found, scores = [], []
        for info in infos:
            category = (self._things if info["isthing"] else self._stuff)[int(info["category_id"])]
            if category is not None:
                found.append((int(info["id"]), category))
                scores.append(float(info.get("score", 1.0)))  # stuff has none
        return renumber(at_cell_centres(ids.cpu().numpy(), size), found, scores)


def build_detectron2(config: SegmenterConfig, device: Any) -> Detectron2Segmenter:
    """Build the zoo's model, and load its weights.

    Raises:
        SegmenterError: the library is missing, or a setting, the weights or the classes are no good.
    """
    config = config.resolved()
    library = _library()
    settings = zoo_settings(library, config.ZOO_CONFIG)
    # the library drops an instance of which more than a share is taken by others
    combine, heads = settings.MODEL.PANOPTIC_FPN.COMBINE, settings.MODEL.ROI_HEADS
    own = (float(combine.INSTANCES_CONFIDENCE_THRESH), 1 - float(combine.OVERLAP_THRESH))
    threshold, mask_threshold = config.thresholds(*own)
    combine.INSTANCES_CONFIDENCE_THRESH, combine.OVERLAP_THRESH = threshold, 1 - mask_threshold
    heads.SCORE_THRESH_TEST = min(float(heads.SCORE_THRESH_TEST), threshold)  # decides before
    settings.MODEL.DEVICE = str(device)
    things, stuff = class_numbers(library, settings.DATASETS.TEST[0], config.ZOO_CONFIG)
    file = Path(config.PATH)
    weights = read_weights(file, config.ZOO_CONFIG)
    model = library.build_model(settings).eval()
    load_weights(model, weights, file, config.ZOO_CONFIG)
    sides = settings.INPUT.MIN_SIZE_TEST
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(json.dumps([config.ZOO_CONFIG, threshold, mask_threshold]).encode())
    return Detectron2Segmenter(
        model,
        library.ResizeShortestEdge([sides, sides], settings.INPUT.MAX_SIZE_TEST),
        settings.INPUT.FORMAT,
        things,
        stuff,
        block=block_size(config.BATCH_SIZE, device),
        fingerprint=f"detectron2-{digest.hexdigest()[:16]}",
    )


def _library() -> Any:
    """What is used of the library, by name.

    Raises:
        SegmenterError: it cannot be imported.
    """
    library = ModuleType("what is used of detectron2")
    try:
        from detectron2 import model_zoo
        from detectron2.data import MetadataCatalog
        from detectron2.data.transforms import ResizeShortestEdge
        from detectron2.modeling import build_model
    except ImportError as error:
        raise SegmenterError(
            f"SEGMENTER.NAME detectron2: the library cannot be imported ({error}). {HOW_TO_BUILD}, or choose "
            "SEGMENTER.NAME mask2former, xdecoder, precomputed or none."
        ) from error
    library.__dict__.update(
        model_zoo=model_zoo,
        MetadataCatalog=MetadataCatalog,
        ResizeShortestEdge=ResizeShortestEdge,
        build_model=build_model,
    )
    return library


def zoo_settings(library: Any, name: str) -> Any:
    """The library's configuration of a model of its zoo.

    Raises:
        SegmenterError: the zoo has none of that name, or it is no panoptic model that reads colours.
    """
    hint = "name a panoptic one, e.g. COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml"
    path = PurePosixPath(name)
    # the library would take files from elsewhere too, and lets them run code
    if path.is_absolute() or ".." in path.parts or path.suffix != ".yaml":
        raise SegmenterError(f"SEGMENTER.ZOO_CONFIG: '{name}' is no name of detectron2's model zoo; {hint}")
    try:
        settings = library.model_zoo.get_config(name)
    except RuntimeError as error:
        raise SegmenterError(f"SEGMENTER.ZOO_CONFIG: detectron2's model zoo has no '{name}'; {hint}") from error
    if settings.MODEL.META_ARCHITECTURE != ARCHITECTURE or settings.INPUT.FORMAT not in ("RGB", "BGR"):
        raise SegmenterError(
            f"SEGMENTER.ZOO_CONFIG: {name} is a {settings.MODEL.META_ARCHITECTURE} for {settings.INPUT.FORMAT}; {hint}"
        )
    return settings


def class_numbers(library: Any, dataset: str, name: str) -> tuple[list[int | None], list[int | None]]:
    """Our categories of a data set's thing classes and of its stuff classes, found by their names.

    Args:
        library: what `build` uses of the library.
        dataset: that the model is tested on, in the library's catalogue.
        name: of the configuration, for errors.

    Raises:
        SegmenterError: names that are no categories of COCO panoptic.
    """
    entry = library.MetadataCatalog.get(dataset)
    kinds = [list(getattr(entry, kind, ())) for kind in ("thing_classes", "stuff_classes")]
    things, stuff = ([coco_index(item) for item in names] for names in kinds)
    pairs = zip(kinds[0] + kinds[1], things + stuff, strict=True)
    unknown = [item for item, number in pairs if number is None and item != INSTANCES]
    if unknown or not things or not stuff:
        which = some_of([repr(item) for item in unknown], _FEW)
        raise SegmenterError(
            f"SEGMENTER.ZOO_CONFIG: {name} is for {dataset}, whose classes are not those of COCO panoptic: "
            f"{which or 'things or stuff'} {'unknown' if unknown else 'missing'}"
        )
    return things, stuff


class _Arrays(pickle.Unpickler):
    """Unpickles dictionaries of arrays and refuses everything else, so that no code of a file runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, which is no array")
        return super().find_class(module, name)


def _read_pickle(file: BinaryIO) -> Any:
    return _Arrays(file, encoding="latin1").load()  # as files of Python 2 need it


def read_weights(file: Path, name: str) -> dict[str, Tensor]:
    """Read weights: the zoo's pickled arrays, a training run's ``.pth``, or ``.safetensors``; no code in it runs.

    Args:
        file: the file.
        name: of the configuration, for errors.

    Raises:
        SegmenterError: it is missing, damaged, or holds anything else.
    """
    if not file.is_file():
        raise SegmenterError(
            f"SEGMENTER.PATH: {file} is no file; detectron2 takes the weights of SEGMENTER.ZOO_CONFIG {name}, e.g. the "
            ".pkl that its model zoo lists for it"
        )
    try:
        check_real(file)
        if file.suffix == ".safetensors":
            return load(file)
        if file.suffix != ".pkl":
            content = read_archive(file)
            return load_described(named_tensors(content.get("model", content), file), file)
        with file.open("rb") as opened:
            content = _read_pickle(opened)
        weights = content.get("model", content)
        return {key: torch.as_tensor(value) for key, value in weights.items()}
    except Exception as error:  # damaged bytes make the readers fail in any way
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise SegmenterError(f"SEGMENTER.PATH: {file} cannot be read as weights ({reason})") from error


def load_weights(model: Any, weights: Mapping[str, Tensor], file: Path, name: str) -> None:
    """Give a model its weights.

    Args:
        model: of the library.
        weights: by the library's names.
        file: they are from, for errors.
        name: of the configuration, for errors.

    Raises:
        SegmenterError: a tensor is missing, unknown or of another shape.
    """
    try:
        missing, unknown = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).split("\n") if line.strip()]
        raise SegmenterError(
            f"SEGMENTER.PATH: {file} has other shapes than SEGMENTER.ZOO_CONFIG {name}: {lines[-1]}"
        ) from error
    made = [key for key in (*missing, *unknown) if any(part in key for part in MADE_FROM_CONFIGURATION)]
    wrong = [f"{key} is missing" for key in missing if key not in made]
    wrong += [f"{key} is unknown" for key in unknown if key not in made]
    if wrong:
        raise SegmenterError(f"SEGMENTER.PATH: {file} is not for SEGMENTER.ZOO_CONFIG {name}: {some_of(wrong, _FEW)}")
    if made:
        logger.info("%s: made from the configuration: %s", file, ", ".join(made))
