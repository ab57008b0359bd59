"""Images as callers have them (a path, a PIL image, an array of any size) to the square pixels that the model takes.

Paths and PIL images are prepared exactly as in evaluation: EXIF orientation, RGB, bilinear resize to a square.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from configs.common.words import shown
from modeling.image import DecodedImage, UndecodableImageError, decode_pixels

from .errors import ImageError

ImageInput: TypeAlias = "str | os.PathLike[str] | Image.Image | npt.NDArray[Any]"
"""What an image may be given as."""

_CHANNELS = (1, 3, 4)


def decode_image_input(image: ImageInput, size: int | None) -> DecodedImage:
    """An image, ready for the model or the segmenter.

    Args:
        image: path of a file, PIL image of any mode, or array: (height, width), or (height, width, channels) with 1, 3
            or 4 channels; uint8, bool, or float from 0 to 1.
        size: side of the square in pixels; None for the image's own size.
    Returns: RGB pixels, uint8 (size, size, 3), with the file's name, or a name that says what was given.

    Raises:
        ImageError: it is missing, unreadable, empty or dangerously large, or no image at all; named.
    """
    name = os.path.basename(os.fspath(image)) if isinstance(image, (str, os.PathLike)) else type(image).__name__
    given = _given(image)
    try:
        return DecodedImage(decode_pixels(given, size), name)
    except UndecodableImageError as error:
        raise ImageError(f"{shown(name)}: {shown(str(error))}") from error


def _given(image: ImageInput) -> bytes | Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, (str, os.PathLike)):
        raise ImageError(f"an image is a path, a PIL image or a numpy array, not {type(image).__name__}")
    path = Path(image).expanduser()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{shown(str(path))}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{shown(str(path))}: a folder, not an image") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{shown(str(path))}: cannot be read ({shown(str(error))})") from error


def _from_array(values: npt.NDArray[Any]) -> Image.Image:
    """An array as an image.

    Raises:
        ImageError: its shape or type is no image's.
    """
    shape = values.shape
    if values.ndim not in (2, 3) or (values.ndim == 3 and shape[2] not in _CHANNELS) or 0 in shape:
        raise ImageError(
            f"an array of shape {shape} is no image; expected (height, width) or (height, width, 1, 3 or 4 channels)"
        )
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ImageError("an image of floats must hold numbers from 0 to 1; give uint8 for 0 to 255")
        values = np.round(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ImageError(f"an image's array is uint8, bool, or float from 0 to 1, not {values.dtype}")
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if values.ndim == 3 and shape[2] == 1 else values))
