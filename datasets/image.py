"""From encoded bytes to the square RGB image that the model takes, or to one of its own size for a segmenter.

EXIF orientation is applied, any mode becomes RGB (transparency is dropped, 16-bit grey scaled to 8), and the image is
resized to a square without regard to its aspect ratio.
"""

from __future__ import annotations

import io
import math
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from configs.common.pixels import MODEL_FILTER, square, unknown_format, upright_rgb

from .types import DataError, ImageSource

__all__ = ["MODEL_FILTER", "UNREADABLE", "decode", "square"]

_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError,
    RuntimeError, MemoryError, struct.error,
)  # fmt: skip
"""What Pillow's decoders let out on damaged bytes, seen on altered files of all common formats."""
UNREADABLE = (*_DAMAGE, Image.DecompressionBombError)
"""The same for an image of any size."""


def decode(source: ImageSource, size: int | None) -> npt.NDArray[np.uint8]:
    """Decode an image, and resize it where a size is asked for.

    Args:
        source: gives the encoded bytes.
        size: side in pixels; None for the image's own height and width.
    Returns: RGB, uint8 (size, size, 3), or (height, width, 3).

    Raises:
        DataError: missing, unreadable, truncated or dangerously large; the image is named.
    """
    try:
        data = source.read()
    except (OSError, ValueError) as error:
        raise DataError(f"image {source.name}: cannot be read: {error}") from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # Pillow itself only warns
                raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
            found = upright_rgb(opened)
            if size is not None:
                found = square(found, size)
    except Image.DecompressionBombError as error:
        raise DataError(f"image {source.name}: too large to decode safely ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(f"image {source.name}: {unknown_format(data)}") from error
    except _DAMAGE as error:
        raise DataError(f"image {source.name}: damaged ({type(error).__name__}: {error})") from error
    return np.array(found, dtype=np.uint8)  # a copy, since Pillow's own memory is read-only
