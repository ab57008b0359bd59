"""From encoded bytes to the square RGB picture that the model takes, or to one of its own size for a segmenter.

EXIF orientation is applied, any mode becomes RGB (transparency is dropped, 16-bit grey scaled to 8), and the image is
resized to a square without regard to its aspect ratio.
"""

from __future__ import annotations

import io
import math
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from .types import DataError, ImageSource

_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError,
    RuntimeError, MemoryError, struct.error,
)  # fmt: skip
"""What Pillow's decoders let out on damaged bytes, seen on altered files of all common formats."""
UNREADABLE = (*_DAMAGE, Image.DecompressionBombError)
"""The same for a picture of any size."""

MODEL_FILTER = Image.Resampling.BILINEAR
"""Filter of every image that CoLLaVO sees, in evaluation and training.

Source: the reference's dataset mappers (public in its sister project MoAI) apply detectron2's ``T.Resize`` to the image
after its EXIF orientation: ``PIL.Image.resize`` of 8-bit RGB by that transform's default, bilinear. Pillow widens the
filter where it shrinks an image (antialiasing), which a tensor's plain interpolation does not.
"""


def decode(source: ImageSource, size: int | None) -> npt.NDArray[np.uint8]:
    """Decode a picture, and resize it where a size is asked for.

    Args:
        source: gives the encoded bytes.
        size: side in pixels; None for the picture's own height and width.
    Returns: RGB, uint8 (size, size, 3), or (height, width, 3).

    Raises:
        DataError: missing, unreadable, truncated or dangerously large; the picture is named.
    """
    try:
        data = source.read()
    except (OSError, ValueError) as error:
        raise DataError(f"picture {source.name}: cannot be read: {error}") from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # Pillow itself only warns
                raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
            upright = ImageOps.exif_transpose(opened)
            found = _rgb(upright)
            if size is not None:
                found = square(found, size)
    except Image.DecompressionBombError as error:
        raise DataError(f"picture {source.name}: too large to decode safely ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(f"picture {source.name}: {len(data)} bytes that are no picture of a known format") from error
    except _DAMAGE as error:
        raise DataError(f"picture {source.name}: damaged ({type(error).__name__}: {error})") from error
    return np.array(found, dtype=np.uint8)  # a copy, since Pillow's own memory is read-only


def square(image: Image.Image, size: int) -> Image.Image:
    """Resize an image to the model's square as the reference does, see `MODEL_FILTER`.

    Args:
        image: 8-bit RGB, upright.
        size: side in pixels; an image that has it already is returned unchanged.
    """
    return image.resize((size, size), MODEL_FILTER)


def _rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB version; deep grey is scaled by its own range, since Pillow would clip it to white."""
    if image.mode not in _DEEP_MODES:
        return image.convert("RGB")
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode != "F" and values.max() > 255 else max(values.max(), 255.0)
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
