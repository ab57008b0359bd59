"""From an image to the pixels that a model takes: upright, 8-bit RGB, and a square. The only place that does it.

CoLLaVO as a library, evaluation and training call `decode_pixels`. EXIF orientation is applied, any mode becomes RGB
(transparency is dropped, 16-bit grey scaled to 8), and the image is resized to a square without regard to its aspect
ratio. Importing this loads no torch.
"""

from __future__ import annotations

import hashlib
import io
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from configs.common.pillow_errors import DAMAGE

UInt8Array = npt.NDArray[np.uint8]
RESIZE_FILTER = Image.Resampling.BILINEAR
"""Filter of every image that CoLLaVO sees, in evaluation and training.

Source: the reference's dataset mappers (public in its sister project MoAI) apply detectron2's ``T.Resize`` to the image
after its EXIF orientation: ``PIL.Image.resize`` of 8-bit RGB by that transform's default, bilinear. Pillow widens the
filter where it shrinks an image (antialiasing), which a tensor's plain interpolation does not.
"""
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


class UndecodableImageError(ValueError):
    """An image that cannot be decoded: the message says why, and leaves its name to the caller."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        pixels: RGB, uint8 (height, width, 3).
        name: the benchmark's stable name of the image (for backends that look maps up on disk).
    """

    pixels: UInt8Array
    name: str

    @cached_property
    def key(self) -> bytes:
        """SHA-256 of type, shape and pixels, computed once; the name does not count."""
        pixels = np.ascontiguousarray(self.pixels)
        digest = hashlib.sha256(repr((pixels.dtype.str, pixels.shape)).encode())
        digest.update(pixels.data)
        return digest.digest()


def decode_pixels(image: bytes | Image.Image, size: int | None) -> UInt8Array:
    """Decode an image, and resize it where a size is asked for.

    Args:
        image: an encoded image, or one that Pillow has opened, of any mode; it stays open.
        size: side of the square in pixels; None for the image's own height and width.
    Returns: RGB, uint8 (size, size, 3), or (height, width, 3); always a copy.

    Raises:
        UndecodableImageError: it is of no known format, truncated, damaged or dangerously large.
    """
    try:
        with _opened(image) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # Pillow itself only warns
                raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
            found = _rgb(ImageOps.exif_transpose(opened))
            if size is not None:
                found = found.resize((size, size), RESIZE_FILTER)
            return np.array(found, dtype=np.uint8)  # a copy, since Pillow's own memory is read-only
    except Image.DecompressionBombError as error:
        raise UndecodableImageError(f"too large to decode safely ({error})") from error
    except UnidentifiedImageError as error:
        given = f"{len(image)} bytes that are " if isinstance(image, bytes) else ""
        raise UndecodableImageError(f"{given}no image of a known format") from error
    except DAMAGE as error:
        raise UndecodableImageError(f"damaged ({type(error).__name__}: {error})") from error


def _opened(image: bytes | Image.Image) -> AbstractContextManager[Image.Image]:
    return Image.open(io.BytesIO(image)) if isinstance(image, bytes) else nullcontext(image)


def _rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB version; deep grey is scaled by its own range, since Pillow would clip it to white."""
    if image.mode not in _DEEP_MODES:
        return image.convert("RGB")
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode != "F" and values.max() > 255 else max(values.max(), 255.0)
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
