"""Images as models other than CoLLaVO take them: at their own size, several to a record, with their encoded bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import ExifTags, Image

from datasets.types import DataError, ImageSource, sources_of
from modeling.image import DecodedImage

from ..images import encoded_bytes, pixels_of

if TYPE_CHECKING:
    from collavo.images import PreparedImage

_SENT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats that servers of the OpenAI protocol take."""
_PLAIN = ("RGB", "L")
"""Modes that every decoder reads alike."""


@dataclass(frozen=True)
class ModelImage(DecodedImage):
    """One image of a record.

    Attributes:
        encoded: its bytes as the benchmark has them.
    """

    encoded: bytes = b""


@dataclass(frozen=True)
class ModelImages(DecodedImage):
    """All images of a record; ``pixels`` are those of the first.

    Attributes:
        parts: the images, in order.
    """

    parts: tuple[ModelImage, ...] = ()


def read_images(source: ImageSource, *, several: bool, model: str) -> ModelImages:
    """Read and decode the images of a record.

    Args:
        source: one image, or a group.
        several: whether the model takes more than one.
        model: what a message calls it.

    Raises:
        DataError: one is unreadable, or there are more than the model takes.
    """
    sources = sources_of(source)
    if len(sources) > 1 and not several:
        raise DataError(f"image {source.name}: the record has {len(sources)} images, and {model} takes one")
    parts = tuple(_read(one) for one in sources)
    return ModelImages(pixels=parts[0].pixels, name=source.name, parts=parts)


def _read(source: ImageSource) -> ModelImage:
    encoded = encoded_bytes(source)
    return ModelImage(pixels=pixels_of(encoded, source.name, None), name=source.name, encoded=encoded)


def images_of(image: DecodedImage | PreparedImage | None) -> tuple[DecodedImage, ...]:
    """The single images of what a question is about."""
    if image is None:
        return ()
    if isinstance(image, ModelImages):
        return image.parts
    return (image if isinstance(image, DecodedImage) else image.image,)


def data_url(image: DecodedImage, max_side: int | None = None) -> str:
    """An image as a data URL: its own bytes where every server reads them alike, else a PNG of its pixels.

    Args:
        image: with its encoded bytes, if it has any.
        max_side: longest side in pixels; a larger image is shrunk. None keeps the size.
    """
    height, width = image.pixels.shape[:2]
    shrunk = max_side is not None and max(height, width) > max_side
    encoded = image.encoded if isinstance(image, ModelImage) else b""
    kind = "" if shrunk or not encoded else _kind(encoded)
    if not kind:
        kind, encoded = "image/png", _png(image, max_side if shrunk else None)
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def _kind(encoded: bytes) -> str:
    """The media type of bytes that may be sent as they are; "" where they may not.

    An image that is turned by its EXIF orientation, moves, or has a rare mode is read otherwise by some servers.
    """
    with Image.open(io.BytesIO(encoded)) as opened:
        upright = opened.getexif().get(ExifTags.Base.Orientation, 1) == 1
        still = getattr(opened, "n_frames", 1) == 1
        return _SENT.get(opened.format or "", "") if upright and still and opened.mode in _PLAIN else ""


def _png(image: DecodedImage, max_side: int | None) -> bytes:
    found = Image.fromarray(image.pixels)
    if max_side is not None:
        ratio = max_side / max(found.size)
        sides = (max(1, round(found.width * ratio)), max(1, round(found.height * ratio)))
        found = found.resize(sides, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    found.save(stream, "PNG")
    return stream.getvalue()
