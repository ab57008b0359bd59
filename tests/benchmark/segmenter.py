"""Speed of X-Decoder on images that share forward passes against one image at a time, in one run.

    python -m tests.benchmark.segmenter [--path xdecoder_focalt.pt] [--sizes 480x640 640x480] [--images 16]
        [--batch 8] [--device cuda]

Prints images per second of both, their ratio, how many passes each took, whether the maps are equal, and how often
the text encoder read each prompt: once while the segmenter is built, never while it segments. Without ``--path`` the
network is a tiny one of random weights, which shows that everything works; how much is gained depends on network and
device.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling.image import DecodedImage
from modeling.segmenters import build_segmenter
from modeling.segmenters.base import PanopticMap
from modeling.segmenters.options import SegmenterConfig
from modeling.segmenters.xdecoder.checkpoint import PROMPTS, save_model
from modeling.segmenters.xdecoder.model import XDecoder
from modeling.segmenters.xdecoder.prompts import COCO_TABLE, PromptTable
from modeling.segmenters.xdecoder.segmenter import XDecoderSegmenter
from modeling.segmenters.xdecoder.text import TextEncoder
from tests.unit.segmenters.tiny_xdecoder import tiny_xdecoder

RESULT = (35, 35)
"""Size of the maps: what CoLLaVO asks for."""
TINY = {"THRESHOLD": 0.1, "MASK_THRESHOLD": 0.05, "SHORT_SIDE": 128}
"""Settings under which the random network finds something, and small images for it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One way of segmenting all images.

    Attributes:
        maps: one per image.
        seconds: the best of some repetitions.
        passes: forward passes of the network.
    """

    maps: list[PanopticMap]
    seconds: float
    passes: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the benchmark measures.

    Attributes:
        single: one image a call.
        batched: all images in one call.
        prompts: of all classes and the background.
        encoded: prompts that the text encoder read while the segmenter was built.
        encoded_later: prompts that it read afterwards.
    """

    single: Run
    batched: Run
    prompts: int
    encoded: int
    encoded_later: int

    @property
    def equal(self) -> int:
        """Images whose two maps are equal, pixels and segments."""
        pairs = zip(self.single.maps, self.batched.maps, strict=True)
        return sum(np.array_equal(a.id_map, b.id_map) and _classes(a) == _classes(b) for a, b in pairs)


def _classes(panoptic: PanopticMap) -> list[tuple[int, int]]:
    return [(segment.id, segment.category_id) for segment in panoptic.segments]


@contextmanager
def counted(kind: type[nn.Module]) -> Iterator[list[int]]:
    """Rows of every call of a kind of module, as a list that grows."""
    rows: list[int] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, kind):
            rows.append(len(args[0]))

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        yield rows
    finally:
        handle.remove()


def draw(sizes: Sequence[tuple[int, int]], count: int) -> list[DecodedImage]:
    """Random images of some sizes in turn, in coarse patches, so that there is something to see."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
        found.append(DecodedImage(coarse[rows][:, columns], f"{number}.jpg"))
    return found


def measure(config: SegmenterConfig, images: Sequence[DecodedImage], device: torch.device, repeat: int = 3) -> Figures:
    """Build a segmenter, and run it both ways.

    Args:
        config: of X-Decoder; its ``BATCH_SIZE`` is used.
        images: all that are segmented.
        device: where.
        repeat: timed repetitions, of which the best counts.
    """
    with counted(TextEncoder) as prompts:
        segmenter = build_segmenter(config, device)
        assert isinstance(segmenter, XDecoderSegmenter)
        encoded = sum(prompts)

        def single() -> list[PanopticMap]:
            segmenter.block = 1
            return [segmenter.segment([image], RESULT)[0] for image in images]

        def batched() -> list[PanopticMap]:
            segmenter.block = config.BATCH_SIZE  # on a CPU it would be a single image
            return segmenter.segment(images, RESULT)

        runs = [timed(way, device, repeat) for way in (single, batched)]
        own = Path(config.PATH) / PROMPTS
        templates = PromptTable.load(own if own.is_file() else COCO_TABLE).templates
        return Figures(
            single=runs[0],
            batched=runs[1],
            prompts=(len(segmenter.categories) + 1) * len(templates),
            encoded=encoded,
            encoded_later=sum(prompts) - encoded,
        )


def timed(way: Callable[[], list[PanopticMap]], device: torch.device, repeat: int) -> Run:
    """Run once to warm up and to count passes, then ``repeat`` times."""
    with counted(XDecoder) as passes:
        maps = way()
    seconds = []
    for _ in range(repeat):
        start = _clock(device)
        way()
        seconds.append(_clock(device) - start)
    return Run(maps=maps, seconds=min(seconds), passes=len(passes))


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def report(figures: Figures) -> str:
    """The figures in words."""
    single, batched = figures.single, figures.batched
    count = len(single.maps)
    often = figures.encoded / figures.prompts
    read = f"each of {figures.prompts} prompts read {often:g} x" if often else "0 x (embeddings lie by the checkpoint)"
    return (
        f"{'':<24}{'one at a time':>16}{'together':>12}{'ratio':>8}\n"
        f"{'images per second':<24}{count / single.seconds:>16.4g}{count / batched.seconds:>12.4g}"
        f"{single.seconds / batched.seconds:>8.2f}\n"
        f"{'forward passes':<24}{single.passes:>16}{batched.passes:>12}\n"
        f"maps equal: {figures.equal} of {count}, with {sum(len(m.segments) for m in batched.maps)} segments\n"
        f"text encoder: {read} while building, {figures.encoded_later / figures.prompts:g} x while segmenting\n"
    )


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Time X-Decoder with shared forward passes against single images.")
    parser.add_argument("--path", help="checkpoint: released file or directory (default: a tiny one, random weights)")
    parser.add_argument("--sizes", nargs="+", type=_size, default=[(480, 640), (640, 480)], metavar="HxW",
        help="of the images, in turn (default: 480x640 640x480)")  # fmt: skip
    parser.add_argument("--images", type=int, default=16, help="number of images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="most images of a pass (default: %(default)s)")
    parser.add_argument("--short-side", type=int,
        help="of the resized images, pixels (default: 800; with the tiny network 128)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {} if args.path else dict(TINY)
        if args.short_side:
            settings["SHORT_SIDE"] = args.short_side
        if not args.path:
            save_model(Path(folder), tiny_xdecoder())
        config = SegmenterConfig(NAME="xdecoder", PATH=args.path or folder, BATCH_SIZE=args.batch, **settings)
        figures = measure(config, draw(args.sizes, args.images), torch.device(args.device))
    sizes = " ".join(f"{height}x{width}" for height, width in args.sizes)
    sys.stdout.write(f"{args.images} images of {sizes}, {args.batch} in a pass, {args.device}\n" + report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
