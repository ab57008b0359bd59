"""Images that stand as base64 in a table or a JSON file, decoded when they are needed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

_DATA_URI = re.compile(r"\s*data:[\w.+/-]*(?:;[\w=.+-]*)*;base64,")
_PLAIN = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")
_LONGEST_NAME = 4096


def digest(cell: str | bytes) -> str:
    """Short name of an image by its encoded content, so that equal names mean equal images."""
    return hashlib.sha256(cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else cell).hexdigest()[:16]


def is_base64(text: str) -> bool:
    """Whether a text is an image, not the name of its file: that is not so long, or has a period."""
    return bool(_DATA_URI.match(text)) or len(text) > _LONGEST_NAME or bool(_PLAIN.fullmatch(text))


def from_base64(text: str, where: str) -> bytes:
    """Decode an image's text, be it broken into lines or led by ``data:image/png;base64,``.

    Args:
        text: the base64.
        where: file and place, for messages.

    Raises:
        OSError: it is no base64.
    """
    uri = _DATA_URI.match(text)
    plain = (text[uri.end() :] if uri else text).strip().replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as error:
        raise OSError(f"{where} is not base64: {error}") from None


@dataclass(frozen=True)
class EncodedImage:
    """An image whose text is held in memory, since its file cannot be read in parts.

    Attributes:
        where: file and place, for messages.
        name: digest of the text.
        text: base64.
    """

    where: str
    name: str
    text: str

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        return from_base64(self.text, f"{self.where}: the image")
