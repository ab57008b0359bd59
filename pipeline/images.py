"""A record's image, read and decoded: `datasets` says where its bytes are, `modeling.image` makes pixels of them."""

from __future__ import annotations

from datasets.types import DataError, ImageSource
from modeling.image import DecodedImage, UInt8Array, UndecodableImageError, decode_pixels


def decode_image(source: ImageSource, size: int | None) -> DecodedImage:
    """Read and decode an image, and resize it where a size is asked for.

    Args:
        source: gives the encoded bytes.
        size: side of the square in pixels; None for the image's own height and width.

    Raises:
        DataError: it is missing, unreadable, truncated or dangerously large; the image is named.
    """
    return DecodedImage(pixels_of(encoded_bytes(source), source.name, size), source.name)


def encoded_bytes(source: ImageSource) -> bytes:
    """The bytes of an image.

    Raises:
        DataError: they cannot be read; the image is named.
    """
    try:
        return source.read()
    except (OSError, ValueError) as error:
        raise DataError(f"image {source.name}: cannot be read: {error}") from error


def pixels_of(encoded: bytes, name: str, size: int | None) -> UInt8Array:
    """See `modeling.image.decode_pixels`.

    Raises:
        DataError: the image cannot be decoded; it is named.
    """
    try:
        return decode_pixels(encoded, size)
    except UndecodableImageError as error:
        raise DataError(f"image {name}: {error}") from error
