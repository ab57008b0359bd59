"""Words of messages: near names, and values short and harmless enough to be shown."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 160
"""Characters of a value that a message shows."""
NAMED = 10
"""Names that a message lists before it says how many more there are."""
_JOINERS = "\u200c\u200d"
_LONGEST_NAME = 200
"""A longer word is no misspelt name, and comparing it would take long."""


def nearest(word: Any, known: Iterable[str], n: int = 2, cutoff: float = 0.6) -> list[str]:
    """Known names that were perhaps meant, best first.

    Args:
        word: what was written.
        known: names that there are.
        n: how many at most.
        cutoff: least likeness, 0..1, in the sense of `difflib.get_close_matches`.
    Returns: names that differ in upper and lower case alone, or else the most alike.
    """
    names = list(known)
    word = str(word)
    if len(word) > _LONGEST_NAME:
        return []
    return [name for name in names if name.lower() == word.lower()] or difflib.get_close_matches(word, names, n, cutoff)


def did_you_mean(word: Any, known: Iterable[str], n: int = 2, cutoff: float = 0.6, *, otherwise: str = ".") -> str:
    """The end of a sentence about an unknown name.

    Args:
        word: what was written.
        known: names that there are.
        n: how many names at most.
        cutoff: see `nearest`.
        otherwise: said where nothing is near.
    Returns: e.g. ``"; did you mean mme?"``.
    """
    near = nearest(word, known, n, cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else otherwise


def listed(names: Sequence[Any]) -> str:
    """Names for a message: the first few of them, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shown, names[:NAMED])) + more


def shown(value: Any, longest: int = LONGEST) -> str:
    """A value as a message shows it: a text without quotes, cut in the middle, with control characters escaped.

    Args:
        value: a text, or anything whose `repr` is shown.
        longest: characters that are kept.
    """
    text = value if isinstance(value, str) else _written(value)
    left_out = len(text) - longest
    if left_out > 0:
        text = f"{text[: longest // 2]} [... {left_out} more characters ...] {text[-(longest - longest // 2) :]}"
    return printable(text)


def quoted(value: Any, longest: int = LONGEST) -> str:
    """A value as a message shows it, a text in quotes; see `shown`."""
    return f"'{shown(value, longest)}'" if isinstance(value, str) else shown(value, longest)


def printable(text: str) -> str:
    r"""A text with all that a terminal would not show as it stands, or could not be written at all, escaped.

    Newlines, tabs and other control characters, directional marks and lone surrogates become ``\n``, ``\x1b``, ...
    Spaces of other scripts and the joiners that some of them are written with stay.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def _written(value: Any) -> str:
    """A value as Python writes it, where it can."""
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a value of type {type(value).__name__} that is too large to be shown"
