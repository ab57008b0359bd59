"""From a decoded image to what a model takes: upright, 8-bit RGB, and a square. Imports Pillow alone."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
MODEL_FILTER = Image.Resampling.BILINEAR
"""Filter of every image that CoLLaVO sees, in evaluation and training.

Source: the reference's dataset mappers (public in its sister project MoAI) apply detectron2's ``T.Resize`` to the image
after its EXIF orientation: ``PIL.Image.resize`` of 8-bit RGB by that transform's default, bilinear. Pillow widens the
filter where it shrinks an image (antialiasing), which a tensor's plain interpolation does not.
"""


_CONTAINERS = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"mif1"), "HEIC")}
"""Image formats in ISO media files, by the brand that stands at their beginning."""


def unknown_format(data: bytes) -> str:
    """What can be said of a file that Pillow does not take for an image: what it is, and what to do.

    Args:
        data: the file, or its beginning.
    """
    brand = _CONTAINERS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    start = data[:512].lstrip().lower()
    kind = brand or ("PDF" if start.startswith(b"%pdf") else "SVG" if b"<svg" in start else None)
    if kind is not None:
        return f"is {kind}, which the installed Pillow does not read: convert it to PNG or JPEG"
    return "is empty" if not data else f"{len(data)} bytes that are no image of a known format"


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image by its EXIF orientation, as 8-bit RGB; transparency is dropped, and deep grey is scaled to 8 bits."""
    return rgb(ImageOps.exif_transpose(image))


def rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB version; deep grey is scaled by its own range, since Pillow would clip it to white."""
    if image.mode not in DEEP_MODES:
        return image.convert("RGB")
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode != "F" and values.max() > 255 else max(values.max(), 255.0)
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """Resize an image to the model's square as the reference does, see `MODEL_FILTER`.

    Args:
        image: 8-bit RGB, upright.
        size: side in pixels; an image that has it already is returned unchanged.
    """
    return image.resize((size, size), MODEL_FILTER)
