"""Images on their way to the decoder: segmented and encoded in batches, ahead of the questions about them.

`ImagePreparer.prepare` may run in a thread of its own while the decoder runs in another; on a GPU it computes on a
stream of its own, whose results the decoder's stream waits for. Nothing depends on the batch: the segmenter sees to it
itself (``modeling/segmenters/blocks.py``), and the vision tower always runs on `BLOCK` images, copies of the last one
included.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modeling.image import DecodedImage, UInt8Array
from modeling.segmenters.base import PanopticMap, Segmenter
from modeling.segmenters.errors import SegmenterError
from modeling.threads import one_thread

from .crayon import CrayonPrompt, crayon_prompt
from .model import CoLLaVOForConditionalGeneration
from .options import CrayonConfig
from .processing import CoLLaVOProcessor

BLOCK = {"cpu": 1, "cuda": 4}
"""Images of a vision tower's forward pass, by device. The shape of a product can decide its last digits, so that it is
always the same; 8-bit products look at all rows at once, and there it is a single image everywhere."""

CRAYONS_KEPT = 256
"""Crayon prompts of images seen last; they are for questions about an image that is asked about again later."""

MapWatcher = Callable[[str, PanopticMap, CrayonPrompt], None]
"""Called with an image's name, panoptic map and crayon prompt; see `Engine.on_map`."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as the decoder needs it.

    Attributes:
        image: at the model's size.
        crayon: what the segmenter found in it.
        features: of the vision tower in the decoder's width, (1, P, D) on the model's device; None where they are
            computed later.
        ready: on a GPU, when the features are there.
    """

    image: DecodedImage
    crayon: CrayonPrompt
    features: Tensor | None = None
    ready: torch.cuda.Event | None = None

    @property
    def pixels(self) -> UInt8Array:
        """RGB, uint8 (side, side, 3)."""
        return self.image.pixels

    @property
    def name(self) -> str:
        """See `DecodedImage`."""
        return self.image.name

    @property
    def key(self) -> bytes:
        """See `image_key`."""
        return image_key(self.image)


def image_key(image: DecodedImage) -> bytes:
    """Identity of an image: its pixels, and its name (which some segmenters look maps up by)."""
    return image.key + image.name.encode("utf-8", "surrogatepass")


class ImagePreparer:
    """Segments and encodes images; several threads may use it. It can segment before there is a model.

    Args:
        processor: gives sizes and pixel normalisation.
        segmenter: gives the panoptic maps.
        crayon: how fine the maps are.
        device: of segmenter and model.
    """

    def __init__(
        self, processor: CoLLaVOProcessor, segmenter: Segmenter, crayon: CrayonConfig, device: torch.device
    ) -> None:
        self._processor, self._segmenter, self._crayon, self._device = processor, segmenter, crayon, device
        self._model: CoLLaVOForConditionalGeneration | None = None
        self._block = 1
        self._on_map: MapWatcher | None = None
        self._handing_over = threading.Lock()
        self._crayons: OrderedDict[bytes, CrayonPrompt] = OrderedDict()
        self._lock = threading.RLock()  # one network each, whoever asks
        self._stream: torch.cuda.Stream | None = None

    @property
    def on_map(self) -> MapWatcher | None:
        """Called with every image's name, map and crayon prompt when they are made, in the thread that prepares it.

        Once another one is set, no call of the earlier one is under way, and none follows.
        """
        return self._on_map

    @on_map.setter
    def on_map(self, watcher: MapWatcher | None) -> None:
        with self._handing_over:
            self._on_map = watcher

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images it takes."""
        return self._processor.image_size

    def attach(self, model: CoLLaVOForConditionalGeneration) -> None:
        """Encode with a model from now on.

        Args:
            model: in evaluation mode, on its device.
        """
        with self._lock:
            self._model, self._device = model, model.device
            whole = getattr(model, "is_loaded_in_8bit", False)
            self._block = 1 if whole else BLOCK.get(model.device.type, BLOCK["cuda"])
            self._stream = None  # the next one waits for the weights

    @torch.inference_mode()
    def prepare(self, images: Sequence[DecodedImage], *, features: bool = True) -> list[PreparedImage | SegmenterError]:
        """Segment images together and, if asked to, encode them.

        Args:
            images: at the model's size.
            features: whether the vision tower runs now, if there is a model.
        Returns: one each, in order; the error of an image that has no map.
        """
        with self._lock, one_thread(self._device), self._own_stream() as stream:
            crayons = self._found(images)
            good = [image for image, crayon in zip(images, crayons, strict=True) if isinstance(crayon, CrayonPrompt)]
            encodes = features and self._model is not None
            encoded = iter(self._encode(good) if encodes else [None] * len(good))
            ready = stream.record_event() if stream is not None and encodes else None
        return [
            PreparedImage(image, crayon, next(encoded), ready) if isinstance(crayon, CrayonPrompt) else crayon
            for image, crayon in zip(images, crayons, strict=True)
        ]

    def one(self, image: DecodedImage) -> PreparedImage:
        """An image that nobody has prepared; its features are left for later.

        Raises:
            SegmenterError: it has no map.
        """
        with self._lock, one_thread(self._device):
            return PreparedImage(image, self._crayons_of([image])[0])

    def maps(self, images: Sequence[DecodedImage]) -> list[tuple[PanopticMap, CrayonPrompt]]:
        """Maps of images as the model is shown them, and the crayon prompts made of them; nothing is kept.

        Raises:
            SegmenterError: one of them has no map.
        """
        grid, categories = self._processor.grid, self._segmenter.categories
        side = grid * self._crayon.map_scale
        with self._lock, one_thread(self._device):
            maps = self._segmenter.segment(images, (side, side))
        return [(panoptic, crayon_prompt(panoptic, grid, categories)) for panoptic in maps]

    @torch.inference_mode()
    def features(self, prepared: PreparedImage) -> Tensor:
        """Vision features of an image, (1, P, D): those that are there, once they are, or else computed now."""
        if prepared.features is None:
            with self._lock, one_thread(self._device):
                return self._encode([prepared.image])[0]
        if prepared.ready is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(prepared.ready)
            prepared.features.record_stream(stream)  # or their memory could be given away while it is read
        return prepared.features

    def forget(self) -> None:
        """Drop what is kept of images seen before."""
        with self._lock:
            self._crayons.clear()

    def _found(self, images: Sequence[DecodedImage]) -> list[CrayonPrompt | SegmenterError]:
        """Crayon prompts; where one image's data is at fault, only that one has an error."""
        try:
            return [*self._crayons_of(images)]
        except SegmenterError as error:
            if len(images) == 1:
                return [error]
        return [found for image in images for found in self._found([image])]

    def _crayons_of(self, images: Sequence[DecodedImage]) -> list[CrayonPrompt]:
        """Crayon prompts of images, of which those that are not kept are segmented together.

        Raises:
            SegmenterError: one of them has no map.
        """
        keys = [image_key(image) for image in images]
        named = dict(zip(keys, images, strict=True))
        missing = {key: image for key, image in named.items() if key not in self._crayons}
        made: dict[bytes, CrayonPrompt] = {}
        if missing:
            maps = self.maps(list(missing.values()))
            for (key, image), (panoptic, crayon) in zip(missing.items(), maps, strict=True):
                made[key] = crayon
                with self._handing_over:
                    if self._on_map is not None:
                        self._on_map(image.name, panoptic, crayon)
        found = {key: made[key] if key in made else self._crayons[key] for key in named}
        for key, crayon in found.items():
            self._crayons[key] = crayon
            self._crayons.move_to_end(key)
        while len(self._crayons) > CRAYONS_KEPT:
            self._crayons.popitem(last=False)
        return [found[key] for key in keys]

    def _encode(self, images: Sequence[DecodedImage]) -> list[Tensor]:
        """Features of images, (1, P, D) each, in blocks of one shape."""
        if self._model is None:
            raise RuntimeError("images are encoded by a model, and none is attached")
        found: list[Tensor] = []
        for start in range(0, len(images), self._block):
            part = [image.pixels for image in images[start : start + self._block]]
            pixels = self._processor.pixel_values(np.stack(part + [part[-1]] * (self._block - len(part))))
            features = self._model.encode_images(pixels.to(self._model.device, self._model.dtype))
            # copies, so that one image that is kept does not keep its whole block
            found += [features[i : i + 1].clone() if self._block > 1 else features for i in range(len(part))]
        return found

    @contextmanager
    def _own_stream(self) -> Iterator[torch.cuda.Stream | None]:
        """Compute on a stream next to the decoder's; None and nothing else where the device has no streams."""
        if self._device.type != "cuda":
            yield None
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.default_stream(self._device))  # which loaded the weights
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield self._stream
