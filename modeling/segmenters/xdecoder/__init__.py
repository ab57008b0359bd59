"""X-Decoder (arXiv 2212.11270) as a panoptic segmenter, in plain PyTorch.

``config`` sizes; ``focalnet``, ``pixel_decoder``, ``decoder``, ``text``, ``model`` the network; ``preprocess``,
``prompts``, ``classes``, ``postprocess`` what surrounds it; ``checkpoint`` files; ``segmenter`` joins them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..options import SegmenterConfig

if TYPE_CHECKING:
    from .segmenter import XDecoderSegmenter


def build(config: SegmenterConfig, device: Any = "cpu") -> XDecoderSegmenter:
    """Build the segmenter from ``PATH`` and its settings; see `segmenter.build`."""
    from .segmenter import build as build_segmenter  # torch, which reading sizes does not need

    return build_segmenter(config, device)
