"""Whether a segmenter's files are on this machine: said before anything is loaded. Importing this loads no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..files import is_file, is_folder
from ..hub import CheckpointNotFoundError, locate
from .errors import SegmenterError
from .options import SegmenterConfig

HOW_TO_BUILD = (
    "No package index has it: install setuptools below 80 and the torchvision that belongs to the installed torch (the "
    "same build, CPU or CUDA), then install it from its source repository (facebookresearch/detectron2) with pip's "
    "--no-build-isolation, which compiles it for that torch"
)
"""How detectron2 gets onto a machine: newer setuptools cannot run its setup, and its models import torchvision."""


def check_xdecoder(config: SegmenterConfig) -> None:
    """Look for an X-Decoder's checkpoint, and the tokenizer that its classes' names may need.

    Raises:
        SegmenterError: something is missing; it is named, with what to do. So do the others here.
    """
    path = Path(config.PATH)
    _must_be(path / "model.safetensors" if is_folder(path) else path, "PATH", "a released .pt file, or a directory")
    if config.TOKENIZER:
        _must_be(Path(config.TOKENIZER), "TOKENIZER", "a directory with CLIP's tokenizer")


def check_detectron2(config: SegmenterConfig) -> None:
    """Look for the weights, and for the library itself."""
    _must_be(Path(config.PATH), "PATH", "a file of its zoo's weights")
    if importlib.util.find_spec("detectron2") is None:
        raise SegmenterError(
            f"SEGMENTER.NAME detectron2: the library is not installed. {HOW_TO_BUILD}, or choose SEGMENTER.NAME "
            "mask2former, xdecoder, precomputed or none."
        )


def check_precomputed(config: SegmenterConfig) -> None:
    """Look for the JSON and the folder of PNGs."""
    _must_be(Path(config.PATH), "PATH", "a JSON in COCO's panoptic format")
    _must_be(Path(config.IMAGES or "."), "IMAGES", "the folder of its PNGs")


def _must_be(path: Path, key: str, what: str) -> None:
    if not is_file(path) and not is_folder(path):
        raise SegmenterError(f"SEGMENTER.{key}: {path} is not there; it is {what}")


def mask2former_folder(config: SegmenterConfig) -> Path:
    """The directory that holds a Mask2Former; one of the hub that is not here is fetched.

    Raises:
        SegmenterError: it is not on this machine, and cannot be fetched.
    """
    try:
        return locate(config.PATH)
    except CheckpointNotFoundError as error:
        raise unusable_mask2former(config, str(error)) from error


def unusable_mask2former(config: SegmenterConfig, reason: str) -> SegmenterError:
    """A Mask2Former that cannot be used, and what to do."""
    return SegmenterError(
        f"SEGMENTER.PATH: Mask2Former '{config.PATH}' cannot be loaded ({reason}). Without a network, download "
        "config.json, preprocessor_config.json and model.safetensors of that name elsewhere and set SEGMENTER.PATH to "
        "their directory, or choose SEGMENTER.NAME precomputed or none."
    )
