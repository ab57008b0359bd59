r"""Text that came from data, servers or users, made fit for a message, a terminal, a Markdown page or a spreadsheet.

What is shown never steers what shows it: control characters, line breaks and bidirectional overrides become visible
escapes (``\n``, ``\x1b``, ``\u202e``), Markdown shows markup as it was written, and no cell of a CSV file is a
formula. JSON files keep the raw data. Imports nothing of ours, so that every package but the model's may use it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST_VALUE = 200
"""Characters of a value in a message or a cell."""
LONGEST_LINE = 2000
"""Characters of a line of a message; longer ones hold a value that nobody shortened."""
_JOINERS = "\u200c\u200d"
"""Invisible, but part of how some scripts and emoji are written."""
_FORMULA = re.compile(r"[\s\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)
_MARKUP = re.compile(r"[\\`*\[\]|~$<>]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def shorten(text: str, limit: int = LONGEST_VALUE) -> str:
    """Cut a long text in its middle, and say how much is missing.

    Args:
        text: of any length.
        limit: characters that stay; one of up to 30 more is shown whole, since the note takes as many.
    """
    if len(text) <= limit + 30:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} ...({len(text) - limit} more characters)... {text[len(text) - tail :]}"


def quoted(value: Any, limit: int = LONGEST_VALUE) -> str:
    """A value for a message, as Python writes it, shortened."""
    if isinstance(value, str) and len(value) > limit + 30:
        return f"{shorten(value, limit)!r}"
    try:
        return shorten(repr(value), limit)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a value of type {type(value).__name__} that is too large to be shown"


def terminal(text: str) -> str:
    """A text on one line of a terminal: whatever is not printed becomes an escape."""
    return text if text.isprintable() else "".join(map(_visible, text))


def inline(text: str, limit: int = LONGEST_VALUE) -> str:
    """A name within a message: an id, a title, a file. On one line, and not too long."""
    return shorten(terminal(text), limit)


def terminal_lines(text: str) -> str:
    """A message of several lines for a terminal; its line breaks are ours, and overlong lines are cut."""
    return "\n".join(shorten(terminal(line), LONGEST_LINE) for line in text.split("\n"))


def markdown(text: str) -> str:
    """A text inside a line or a table cell of Markdown, shown as it is: no markup, links or HTML."""
    return _MARKUP.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), terminal(text))


def csv_cell(text: str) -> str:
    """A text for a cell of a CSV file; one that a spreadsheet would take for a formula gets an apostrophe in front.

    Source: OWASP, "CSV Injection"; a plain number, also with a sign, stays one.
    """
    shown = terminal(text)
    return f"'{shown}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else shown


def _visible(character: str) -> str:
    """A character that is seen, or its escape; spaces of other scripts stay."""
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")
