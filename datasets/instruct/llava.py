"""Conversations in LLaVA's JSON, as LLaVA-Instruct-665K and ShareGPT4V are released.

A list of ``{"id", "image": "coco/train2017/000000033471.jpg", "conversations": [{"from": "human", "value"}, {"from":
"gpt", "value"}, ...]}``; records without ``image`` are text only. In the released lists ids are texts or numbers, and
repeat (several conversations about one image), so that a sample's id is the record's with its place in the list.

Source: LLaVA-1.5 (arXiv 2310.03744), ShareGPT4V (arXiv 2311.12793).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..registration.formats.files import MalformedError, brief, image_file, take, take_id
from ..types import BadRecord, DataError, ImageFile, ImageSource
from .stream import stream_list
from .types import MissingImage, Sample, Turn

IMAGE_TAG = "<image>"
"""Marks the image's place in the released texts; the chat template has its own, so that it is taken out."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
"""Tried where an image is missing: the lists call all of OCR-VQA's ``.jpg``, downloads name some by their format."""


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
        path: the JSON file.
        image_roots: folders that the images' paths are relative to, in the order of the search.
        check_images: look for every image now, so that a sample without one becomes a `MissingImage` rather than an
            error in the middle of training; one or two file-system look-ups a record.

    Yields:
        In the file's order, a `Sample`, or a `BadRecord` that names its place and reason. An `ImageFile` whose path has
        another suffix than its name was found that way; `gather` counts them.

    Raises:
        DataError: the file is unreadable or no JSON list, or images are to be read and there is no folder for them.
    """
    roots = tuple(image_roots)
    for index, item in stream_list(path):
        where = f"{path}, record {index}"
        try:
            image = _image(item, roots)
            name = f"{take_id(item, 'id')}@{index}"
            turns = _turns(take(item, "conversations", list), has_image=image is not None)
        except (MalformedError, RecursionError) as error:
            yield BadRecord(where=where, reason=str(error))
            continue
        source: ImageSource | None = image
        if image is not None and check_images:
            found = image.locate()
            if found is None:
                yield MissingImage(where=where, reason=image.missing())
                continue
            source = ImageFile(found, image.name)
        yield Sample(id=name, image=source, turns=turns, source=path.name, with_objects=image is not None)


def _image(item: Any, roots: tuple[Path, ...]) -> ImageBelow | None:
    """The image of a record; None where it has none.

    Raises:
        MalformedError: there are several, or it is not named by a relative path.
        DataError: there is no folder to look in.
    """
    take(item, "conversations", object)
    if item.get("image") is None:
        return None
    if isinstance(item["image"], list):
        raise MalformedError(f"'image' lists {len(item['image'])} images, a conversation can have one")
    name = take(item, "image", str)
    if not Path(name).name:
        raise MalformedError(f"'image' should be the path of an image, got {brief(name)}")
    if not roots:
        raise DataError(f"image {name}: no folder of images is given")
    return ImageBelow(roots, image_file(roots[0], name).name)


def _turns(messages: list[Any], *, has_image: bool) -> tuple[Turn, ...]:
    """Pair questions with answers.

    Raises:
        MalformedError: they do not alternate, one is empty, or the image tag stands where no image can.
    """
    if not messages or len(messages) % 2:
        raise MalformedError(f"expected questions and answers in pairs, got {len(messages)} messages")
    texts = []
    for index, message in enumerate(messages):
        wanted, speaker = ("human", "gpt")[index % 2], take(message, "from", str)
        if speaker != wanted:
            raise MalformedError(f"message {index}: expected '{wanted}' to speak, got {brief(speaker)}")
        text = take(message, "value", str)
        if index == 0 and has_image:
            text = _without_tag(text)
        if IMAGE_TAG in text:
            allowed = "may stand once, in the first message of a record with 'image'"
            raise MalformedError(f"message {index}: {IMAGE_TAG} {allowed}")
        if not text.strip():
            raise MalformedError(f"message {index} is empty")
        texts.append(text)
    return tuple(Turn(question=q, answer=a) for q, a in zip(texts[::2], texts[1::2], strict=True))


def _without_tag(text: str) -> str:
    """A first message without its tag, and without the space that set it apart."""
    before, tag, after = text.partition(IMAGE_TAG)
    if not tag:
        return text
    return f"{before.rstrip()}{' ' if before.strip() and after.strip() else ''}{after.lstrip()}"
