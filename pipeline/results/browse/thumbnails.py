"""Thumbnails of a report's images: made once per image, in a few threads, as files next to the pages."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from configs.common.pillow_errors import UNREADABLE
from datasets.types import ImageSource, sources_of

from ...runtime.files import make_folder, write_bytes

FOLDER = "thumbnails"
SIDE, QUALITY = 256, 78
"""Pixels of a thumbnail's longer side, and JPEG's quality."""
THREADS = 4
"""Decoding leaves Python's lock, so threads use several cores."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small image.

    Attributes:
        file: its name in `FOLDER`.
        content: JPEG.
    """

    file: str
    content: bytes

    @property
    def data_uri(self) -> str:
        """The image itself as an address, for a page that carries it."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.content).decode()}"


def make_thumbnails(sources: Iterable[ImageSource], out: Path) -> dict[str, Thumbnail]:
    """Make the thumbnails of some images, and write them; those that are there already are read.

    Args:
        sources: images; equal names are the same image.
        out: folder of the report.
    Returns: by image name; images that cannot be read are missing.

    Raises:
        WriteError: the folder cannot be written to.
    """
    once = {source.name: source for source in sources}
    if not once:
        return {}
    folder = make_folder(out / FOLDER)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnails") as pool:
        made = pool.map(lambda source: _thumbnail(source, folder), once.values())
        return {name: thumbnail for name, thumbnail in zip(once, made, strict=True) if thumbnail is not None}


def _thumbnail(source: ImageSource, folder: Path) -> Thumbnail | None:
    try:
        parts = [one.read() for one in sources_of(source)]
    except (OSError, ValueError):
        return None  # the record's own error says so
    data = b"".join(parts)
    file = f"{hashlib.sha256(data).hexdigest()[:16]}.jpg"
    if (folder / file).is_file():
        return Thumbnail(file=file, content=(folder / file).read_bytes())
    content = shrink(data) if len(parts) == 1 else _side_by_side([shrink(part) for part in parts])
    if content is None:
        return None
    write_bytes(folder / file, content)
    return Thumbnail(file=file, content=content)


def shrink(data: bytes, side: int = SIDE) -> bytes | None:
    """Make a small JPEG of an encoded image, upright; None where it is no image that can be decoded.

    Args:
        data: the encoded image.
        side: pixels of the longer side.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or opened.width * opened.height):
                return None
            opened.draft("RGB", (side, side))  # a JPEG is decoded no larger than it must be
            opened.thumbnail((side, side), reducing_gap=2.0)
            image = ImageOps.exif_transpose(opened)
            content = io.BytesIO()
            _rgb(image).save(content, "JPEG", quality=QUALITY)
    except UNREADABLE:
        return None
    return content.getvalue()


def _side_by_side(parts: Sequence[bytes | None]) -> bytes | None:
    """The small images of a record that has several, as one; None where one of them cannot be decoded."""
    images = [Image.open(io.BytesIO(part)) for part in parts if part is not None]
    if len(images) < len(parts):
        return None
    sheet = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    content = io.BytesIO()
    sheet.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def _rgb(image: Image.Image) -> Image.Image:
    """An image on white, as pages show transparent ones."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image.convert("RGB")


def within_budget(wanted: Iterable[str], made: Mapping[str, Thumbnail], budget: float) -> set[str]:
    """Names of the images whose thumbnails a page carries inside, the first ones first.

    Args:
        wanted: image names, the most important first.
        made: see `make_thumbnails`.
        budget: bytes of all of them together.
    """
    inside: set[str] = set()
    for name in dict.fromkeys(wanted):
        if name in made:
            budget -= len(made[name].data_uri)
            if budget < 0:
                break
            inside.add(name)
    return inside
