"""Width and height of an image, read from its header: nothing is decoded."""

from __future__ import annotations

import io

from PIL import ExifTags, Image

from configs.common.pillow_errors import UNREADABLE

from .types import DataError, ImageFile, ImageSource

_LYING = (5, 6, 7, 8)
"""Values of EXIF's orientation that turn an image by a quarter."""


def image_size(source: ImageSource) -> tuple[int, int]:
    """Width and height in pixels of an image as it is shown, with its EXIF orientation applied.

    Args:
        source: gives the encoded bytes; of a file only the header is read.

    Raises:
        DataError: it is missing, or no image; it is named.
    """
    try:
        encoded = source.path if isinstance(source, ImageFile) else io.BytesIO(source.read())
        with Image.open(encoded) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation) in _LYING
    except UNREADABLE as error:
        raise DataError(f"image {source.name}: its size cannot be read ({error})") from error
    return (height, width) if turned else (width, height)
