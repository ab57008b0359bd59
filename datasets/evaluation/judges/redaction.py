r"""A judge's key, kept out of everything that a server or the client library says.

A server may repeat the key that it was sent: in an error, a reply, its name, an address, and encoded. All that comes
back passes one `Redactor` before anybody else sees it, so no file, message or traceback can hold what it takes out:

- the key and its base64 and hexadecimal forms, in either case, also as part of a longer text such as ``Bearer KEY``;
- each of them with any of its characters escaped, several times over: ``%2B``, ``\u002b``, ``\x2b``, ``\+``, ``&#43;``;
- every piece of them that is too long to be chance, as a message holds that the server cut in the middle.

The time is linear in the length of the text, whatever it holds.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator

REDACTED = "[key]"
SHORTEST = 6
"""Characters of a key; what is shorter is a placeholder (``none``, ``EMPTY``) for a server that wants none."""
_PIECE = 12
"""Characters in a row that are taken for a piece of the key."""
_LEVELS = 4
"""How often a text is unescaped."""
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
"""ASCII alone: other letters may change their number when their case changes."""
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ESCAPE = re.compile(
    r"\\u\{0*([0-9a-f]{1,2})\}|\\u00([0-9a-f]{2})|\\x([0-9a-f]{2})|%([0-9a-f]{2})|&#x0*([0-9a-f]{1,2});"
    r"|&#0*([0-9]{1,3});|&(amp|lt|gt|quot|apos);|\\([^a-z0-9])",
    re.IGNORECASE,
)


class Redactor:
    """Takes a key out of texts.

    Args:
        key: the secret, ASCII; one of less than `SHORTEST` characters is a placeholder and stays.
    """

    def __init__(self, key: str) -> None:
        self._pieces: dict[int, set[str]] = {}
        for form in _forms(key) if len(key) >= SHORTEST else ():
            size = min(len(form), _PIECE)
            pieces = (form[i : i + size].translate(_LOWER) for i in range(len(form) - size + 1))
            self._pieces.setdefault(size, set()).update(pieces)

    def __call__(self, text: str) -> str:
        """The text with ``[key]`` in place of the key."""
        if not self._pieces:
            return text
        found = bytearray(len(text))
        for level, places in _levels(text):
            for start, end in self._spans(level.translate(_LOWER)):
                found[places[start] : places[end]] = b"\1" * (places[end] - places[start])
        runs = itertools.groupby(zip(found, text, strict=True), key=lambda pair: pair[0])
        return "".join(REDACTED if hit else "".join(c for _, c in run) for hit, run in runs)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for size, pieces in self._pieces.items():
            for start in range(len(text) - size + 1):
                if text[start : start + size] in pieces:
                    yield start, start + size


def _forms(key: str) -> Iterator[str]:
    """The key, its hexadecimal form, and what base64 makes of it at each of the three places in a longer text."""
    raw = key.encode()
    # a key that holds what looks like an escape is unescaped with the text around it
    yield from (level for level, _ in _levels(key) if len(level) >= SHORTEST)
    yield raw.hex()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw).decode().rstrip("=")
        first = -(-offset * 8 // 6)  # characters that hold bits of what stands before
        last = (offset + len(raw)) * 8 // 6  # and from here, bits of what follows
        yield encoded[first:last]
        yield encoded[first:last].translate({ord("+"): "-", ord("/"): "_"})


def _levels(text: str) -> Iterator[tuple[str, list[int]]]:
    """The text as it is and unescaped once, twice, ...; with the place of every character, and the end, in the text."""
    places = list(range(len(text) + 1))
    yield text, places
    for _ in range(_LEVELS):
        plain: list[str] = []
        kept: list[int] = []
        at = 0
        for match in _ESCAPE.finditer(text):
            plain += [text[at : match.start()], _meant(match)]
            kept += [*places[at : match.start()], places[match.start()]]
            at = match.end()
        if not at:
            return
        text, places = "".join([*plain, text[at:]]), [*kept, *places[at:]]
        yield text, places


def _meant(escape: re.Match[str]) -> str:
    """The character that an escape stands for."""
    *hexadecimal, decimal, named, itself = escape.groups()
    digits = next((group for group in hexadecimal if group), None)
    if digits is not None:
        return chr(int(digits, 16))
    return chr(int(decimal)) if decimal else itself or _NAMED[named.lower()]
