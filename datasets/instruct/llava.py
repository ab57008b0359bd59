"""Files of conversations: a JSON list, as LLaVA-Instruct-665K and ShareGPT4V are released, or JSON lines.

What a record may look like, `conversation_record` says. In the released lists ids are texts or numbers, and repeat
(several conversations about one image), so that a sample's id is the record's with its place in the file. Images are
named by absolute paths, by paths below a folder, or stand in the record as base64 (``data:image/png;base64,...``).

Source: LLaVA-1.5 (arXiv 2310.03744), ShareGPT4V (arXiv 2311.12793).
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..registration.formats.base64_images import EncodedImage, digest, is_base64
from ..registration.formats.files import MalformedError, brief, image_file
from ..registration.formats.jsonl import lines, parse
from ..types import BadRecord, DataError, ImageFile, ImageSource
from .conversation_record import conversation_of
from .stream import stream_list
from .types import MissingImageRecord, Sample

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
"""Tried where an image is missing: the lists call all of OCR-VQA's ``.jpg``, downloads name some by their format."""
_LONGEST_LINE = 2**24


@dataclass(frozen=True)
class ImageBelow:
    """An image that is looked for when it is read.

    Attributes:
        roots: folders, in the order of the search.
        name: path below one of them, as the list has it.
    """

    roots: tuple[Path, ...]
    name: str

    def locate(self) -> Path | None:
        """Its file; one of the same name but another of `SUFFIXES` counts where there is none of the exact name."""
        places = [root / self.name for root in self.roots]
        others = [place.with_suffix(suffix) for place in places for suffix in SUFFIXES]
        return next((place for place in places + others if os.path.isfile(place)), None)

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        found = self.locate()
        if found is None:
            raise FileNotFoundError(self.missing())
        return found.read_bytes()

    def missing(self) -> str:
        """Says where it was looked for."""
        places = ", ".join(str(root / self.name) for root in self.roots)
        return f"the image is missing; looked for {places}, also as {', '.join(SUFFIXES)}"


def read_conversations(path: Path, image_roots: Sequence[Path], check_images: bool) -> Iterator[Sample | BadRecord]:
    """Read conversations one by one; the file is never held as a whole.

    Memory, measured with a file of 200 MB that holds an emoji: 11 MB while reading, 325 MB for all samples kept in a
    list (`json.load`: 1.4 GB); 5 s a pass.

    Args:
        path: a JSON list, or JSON lines.
        image_roots: folders that the images' paths are relative to, in the order of the search.
        check_images: look for every image now, so that a sample without one becomes a `MissingImageRecord` rather than
            an error in the middle of training; one or two file-system look-ups a record.

    Yields:
        In the file's order, a `Sample`, or a `BadRecord` that names its place and reason. An `ImageFile` whose path has
        another suffix than its name was found that way; `gather` counts them.

    Raises:
        DataError: the file is unreadable, or neither a JSON list nor JSON lines; or images are to be read and there is
            no folder for them.
    """
    roots = tuple(image_roots)
    for where, index, item in _records(path):
        try:
            if isinstance(item, MalformedError):
                raise item
            said = conversation_of(item)
            image = None if said.image is None else _image(said.image, roots, where)
        except (MalformedError, RecursionError) as error:
            yield BadRecord(where=where, reason=str(error))
            continue
        source: ImageSource | None = image
        if isinstance(image, ImageBelow) and check_images:
            found = image.locate()
            if found is None:
                yield MissingImageRecord(where=where, reason=image.missing())
                continue
            source = ImageFile(found, image.name)
        name = f"{said.id}@{index}" if said.id else str(index)
        yield Sample(
            id=name,
            image=source,
            turns=said.turns,
            source=path.name,
            with_objects=image is not None,
            system=said.system,
        )


def _records(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Place, number and content of every record; a line that is no JSON comes as the error that says so.

    Raises:
        DataError: see `read_conversations`.
    """
    if _in_lines(path):
        for number, line in enumerate(lines(path)):
            try:
                content = parse(line.content)
            except MalformedError as error:
                content = error
            yield line.where, number, content
        return
    for index, item in stream_list(path):
        yield f"{path}, record {index}", index, item


def _in_lines(path: Path) -> bool:
    """Whether a file holds a record a line rather than a list."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return True
    try:
        with path.open("rb") as file:
            start = file.readline(_LONGEST_LINE).removeprefix(codecs.BOM_UTF8).strip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is in UTF-16; save it in UTF-8")
    if not start.startswith(b"{"):
        return False
    try:
        first = parse(start)
    except MalformedError:
        first = None
    if isinstance(first, dict) and {"conversations", "messages"} & set(first):
        return True
    raise DataError(
        f"{path}: holds a JSON object that is no conversation; a list of conversations is needed, or JSON lines with "
        "'conversations' or 'messages' in each"
    )


def _image(name: str, roots: tuple[Path, ...], where: str) -> ImageBelow | EncodedImage:
    """The image that a record names.

    Raises:
        MalformedError: no file can have this name, or it leads out of the folders.
        DataError: there is no folder to look in.
    """
    if is_base64(name):
        return EncodedImage(where, digest(name), name)
    if not Path(name).name:
        raise MalformedError(f"'image' should be the path of an image, got {brief(name)}")
    if Path(name).is_absolute() and ".." not in Path(name).parts:
        return ImageBelow((Path("/"),), image_file(Path("/"), name[1:]).name)
    if not roots:
        raise DataError(f"image {name}: no folder of images is given")
    return ImageBelow(roots, image_file(roots[0], name).name)
