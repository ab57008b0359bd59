"""Files that are whole or absent, as text and as JSON; see ``datasets/writing.py``."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.writing import (
    WriteError,
    append,
    json_line,
    make_folder,
    naming_write_errors,
    new_folder,
    remove_partial,
    write_bytes,
)

from .errors import RunError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "WriteError",
    "append",
    "check_folder",
    "format_of",
    "json_line",
    "make_folder",
    "new_folder",
    "remove_partial",
    "write_bytes",
    "write_image",
    "write_json",
    "write_text",
    "naming_write_errors",
]


def check_folder(key: str, folder: Path) -> None:
    """Check that files can be written below a folder, which need not exist yet. Makes nothing.

    Args:
        key: the setting that names it.
        folder: may begin with ``~``.

    Raises:
        RunError: a file is in its place or above it, or it cannot be written to.
    """
    place = folder.expanduser().absolute()
    there = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise RunError(f"{key}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{key}: {there} cannot be written to; choose another folder")


def write_text(file: Path, text: str) -> None:
    """Replace a text file at once; UTF-8, line ends as they are.

    Raises:
        WriteError: see `write_bytes`.
    """
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def write_json(file: Path, values: Any) -> None:
    """Replace a JSON file at once, indented for readers.

    Raises:
        WriteError: see `write_bytes`.
    """
    write_text(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_image(file: Path, image: Image.Image, **options: Any) -> None:
    """Replace an image file at once.

    Args:
        file: its suffix says the format.
        image: to be written.
        options: of the format, see Pillow.

    Raises:
        WriteError: see `write_bytes`.
        ValueError: there is no format of this suffix.
    """
    content = io.BytesIO()
    image.save(content, format_of(file), **options)
    write_bytes(file, content.getvalue())


def format_of(file: Path) -> str:
    """The format of an image by the suffix of its file.

    Raises:
        ValueError: there is none that can be written.
    """
    from PIL import Image

    name = Image.registered_extensions().get(file.suffix.lower(), "")
    if name not in Image.SAVE:
        raise ValueError(f"{file}: no images of this suffix can be written; take .png")
    return name
