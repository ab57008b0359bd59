"""Text of data, servers and users where something would read it as more than text: terminals, Markdown, spreadsheets.

Control characters, line breaks and directional overrides become visible escapes (`words.printable`), Markdown shows
markup as it was written, and no cell of a CSV file is a formula. JSON files keep the raw data.
"""

from __future__ import annotations

import re

from .words import printable, shown

LONGEST_LINE = 2000
"""Characters of a line of a message; longer ones hold a value that nobody shortened."""
_FORMULA = re.compile(r"[\s\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)
_MARKUP = re.compile(r"[\\`*\[\]|~$<>]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def terminal_lines(text: str) -> str:
    """A message of several lines for a terminal; its line breaks are ours, and overlong lines are cut."""
    return "\n".join(shown(line, LONGEST_LINE) for line in text.split("\n"))


def markdown(text: str) -> str:
    """A text inside a line or a table cell of Markdown, shown as it is: no markup, links or HTML."""
    return _MARKUP.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), printable(text))


def csv_cell(text: str) -> str:
    """A text for a cell of a CSV file; one that a spreadsheet would take for a formula gets an apostrophe in front.

    Source: OWASP, "CSV Injection"; a plain number, also with a sign, stays one.
    """
    cell = printable(text)
    return f"'{cell}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else cell
