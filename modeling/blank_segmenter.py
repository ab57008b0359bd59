"""A segmenter's network without its weights: for its parameters and FLOPs, from its configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import FileError, is_folder, read_object
from .hub import CheckpointNotFoundError, cached
from .segmenters.coco import NUM_CLASSES
from .segmenters.errors import SegmenterError
from .segmenters.options import SegmenterConfig
from .weight_files import describe


@dataclass(frozen=True, kw_only=True)
class BlankSegmenter:
    """A network and what it is given for one image.

    Attributes:
        network: in evaluation mode; its forward pass returns tensors.
        inputs: of one image, on the network's device.
    """

    network: nn.Module
    inputs: tuple[Tensor, ...]


class TensorsOnly(nn.Module):
    """A network whose outputs are picked out of the object that it returns, so that it can be traced.

    Args:
        network: any.
        call: inputs and the network -> tensors.
    """

    def __init__(self, network: nn.Module, call: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network = network
        self._call = call

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return self._call(self.network, *inputs)


def blank_segmenter(config: SegmenterConfig, size: int, device: str) -> BlankSegmenter | None:
    """The network that a configuration names.

    Args:
        config: see `SegmenterConfig`.
        size: side of the square image that it is given, in pixels, before its own resize.
        device: ``meta``, or ``cpu`` for weights of no meaning.
    Returns: None for backends without a network.

    Raises:
        SegmenterError: its configuration is not on this machine or cannot be read, or nothing is known of its network.
    """
    config = config.resolved()
    if config.NAME in ("none", "precomputed"):
        return None
    if config.NAME not in _NETWORKS:
        raise SegmenterError(f"SEGMENTER.NAME {config.NAME}: its library builds the network together with its weights")
    return _NETWORKS[config.NAME](config, size, device)


def _xdecoder(config: SegmenterConfig, size: int, device: str) -> BlankSegmenter:
    from .segmenters.xdecoder.model import XDecoder
    from .segmenters.xdecoder.preprocess import ResizeRule, padded_size

    sizes = _xdecoder_sizes(Path(config.PATH))
    try:
        rule = ResizeRule.named(config.RESIZE, config.SHORT_SIDE, config.LONG_SIDE)
        height, width = padded_size(rule.size(size, size), sizes.size_divisibility)
    except ValueError as error:
        raise SegmenterError(f"SEGMENTER.RESIZE, SHORT_SIDE, LONG_SIDE: {error}") from error
    with torch.device(device):
        network = TensorsOnly(XDecoder(sizes), _xdecoder_output).eval()
        classes = (len(config.CLASSES) or NUM_CLASSES) + 1  # the background is one, too
        return BlankSegmenter(
            network=network, inputs=(torch.zeros(1, 3, height, width), torch.zeros(classes, sizes.decoder.embed_dim))
        )


def _xdecoder_sizes(path: Path) -> Any:
    from .segmenters.xdecoder.checkpoint import read_config
    from .segmenters.xdecoder.released_sizes import released_sizes

    beside = path / "config.json" if is_folder(path) else path.with_name("config.json")
    if is_folder(path) or beside.is_file():
        return read_config(beside)
    try:
        return released_sizes({name: tuple(stored.shape) for name, stored in describe(path).items()}, path)
    except FileError as error:
        raise SegmenterError(f"SEGMENTER.PATH: {error}") from error


def _xdecoder_output(network: nn.Module, pixels: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
    output = network(pixels, classes)
    return output.logits, output.masks


def _mask2former(config: SegmenterConfig, size: int, device: str) -> BlankSegmenter:
    import transformers

    from .segmenters.mask2former import image_processor

    path = Path(config.PATH)
    try:
        folder = path if is_folder(path) else cached(config.PATH)
        if folder is None:
            raise CheckpointNotFoundError(
                "it is neither a directory nor in the hub's cache; nothing is fetched to describe it"
            )
        read_object(folder / "config.json")
        sizes = transformers.Mask2FormerConfig.from_pretrained(folder, local_files_only=True)
        processor = image_processor(folder)
        prepared = processor(
            images=[torch.zeros(size, size, 3, dtype=torch.uint8).numpy()],
            return_tensors="pt",
            input_data_format="channels_last",
        )
        with torch.device(device):
            network = transformers.Mask2FormerForUniversalSegmentation(sizes)
    except (CheckpointNotFoundError, FileError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise SegmenterError(f"SEGMENTER.PATH: {config.PATH}: {str(error).splitlines()[0]}") from error
    inputs = (prepared["pixel_values"].to(device), prepared["pixel_mask"].to(device))
    return BlankSegmenter(network=TensorsOnly(network, _mask2former_output).eval(), inputs=inputs)


def _mask2former_output(network: nn.Module, pixels: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    output = network(pixel_values=pixels, pixel_mask=mask)
    return output.class_queries_logits, output.masks_queries_logits


_NETWORKS = {"mask2former": _mask2former, "xdecoder": _xdecoder}
