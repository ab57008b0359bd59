"""The segmenters by the names that ``SEGMENTER.NAME`` takes. A new one is a module here and an entry of `SEGMENTERS`.

A module is imported when its segmenter is built, so that names and files can be checked without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import files
from .base import Segmenter
from .options import SegmenterConfig


@dataclass(frozen=True, kw_only=True)
class SegmenterEntry:
    """How a segmenter is checked and built from resolved settings.

    Attributes:
        check_files: looks for its files before anything is loaded, without torch; raises SegmenterError.
        build: loads it onto a device; raises SegmenterError.
        needs_path: whether ``SEGMENTER.PATH`` must be set.
    """

    check_files: Callable[[SegmenterConfig], object]
    build: Callable[[SegmenterConfig, Any], Segmenter]
    needs_path: bool = True


def _mask2former(config: SegmenterConfig, device: Any) -> Segmenter:
    from .mask2former import build_mask2former

    return build_mask2former(config, device)


def _xdecoder(config: SegmenterConfig, device: Any) -> Segmenter:
    from .xdecoder.segmenter import build_xdecoder

    return build_xdecoder(config, device)


def _detectron2(config: SegmenterConfig, device: Any) -> Segmenter:
    from .detectron2 import build_detectron2

    return build_detectron2(config, device)


def _precomputed(config: SegmenterConfig, device: Any) -> Segmenter:
    from .precomputed import build_precomputed

    return build_precomputed(config)


def _none(config: SegmenterConfig, device: Any) -> Segmenter:
    from .none import NoSegmenter

    return NoSegmenter()


SEGMENTERS: dict[str, SegmenterEntry] = {
    "detectron2": SegmenterEntry(check_files=files.check_detectron2, build=_detectron2),
    "mask2former": SegmenterEntry(check_files=files.mask2former_folder, build=_mask2former),
    "none": SegmenterEntry(check_files=lambda config: None, build=_none, needs_path=False),
    "precomputed": SegmenterEntry(check_files=files.check_precomputed, build=_precomputed),
    "xdecoder": SegmenterEntry(check_files=files.check_xdecoder, build=_xdecoder),
}
