"""Values of a table's cells, whatever its format: texts, lists, options, answers and the one image of a question.

The same question reads the same from every format: a number is the text it is written with, a list may stand as JSON
(or as Python writes it) in a cell of text, and a missing value is None, an empty text, an empty list or not-a-number.
"""

from __future__ import annotations

import ast
import json
import math
import re
import string
import unicodedata
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from .files import MalformedError, brief, check_text

CHOICES = ("letter", "index", "option")
"""Ways to write an answer that is one of the question's options."""
_YES = ("yes", "y", "true", "t", "1", "1.0", "是", "是的", "有", "对")
_NO = ("no", "n", "false", "f", "0", "0.0", "否", "不", "不是", "没有", "错")
_YES_NO = {**dict.fromkeys(_YES, "yes"), **dict.fromkeys(_NO, "no")}
_LETTERED = re.compile(r"[(\[]?([A-Za-z])[)\].:]\s*(.+)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)
_INDEX = re.compile(r"\d{1,2}(?:\.0*)?", re.ASCII)
_EXACT = 2**53  # beyond it floats skip whole numbers


def absent(value: Any) -> bool:
    """Whether a cell holds nothing; not-a-number is how tables hold a missing number."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or value in ("", b"", [], ())


def as_text(value: Any, column: str) -> str:
    """A text or a number as text; a whole number has no decimal point, even where missing ones made it a float.

    Raises:
        MalformedError: it is anything else.
    """
    if isinstance(value, str):
        check_text(value, column)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    hint = "; for a list say data.answer: list" if isinstance(value, list) else ""
    raise MalformedError(f"'{column}' should be a text or a number, got {brief(value)}{hint}")


def as_list(value: Any) -> list[Any] | None:
    """A list, be it one already or written as JSON or Python in a text; None if it is no list."""
    if isinstance(value, (list, tuple)):
        return list(value)
    text = value.strip() if isinstance(value, str) and value.lstrip().startswith("[") else ""
    if not text.endswith("]"):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's remarks on backslashes in texts that are not its own
                parsed = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return parsed if isinstance(parsed, list) else None
    return None


def images_in(cell: Any, depth: int = 0) -> list[Any]:
    """The images of a cell in order, each base64 or a file name as text, or bytes.

    Args:
        cell: one of these, a list of them, also as a text, or an object with ``bytes`` and ``path``; or nothing.
        depth: of lists around it.

    Raises:
        MalformedError: lists are nested.
    """
    items = as_list(cell)
    if items is not None:
        if depth > 1:
            raise MalformedError("has images in lists within lists")
        return [image for item in items for image in images_in(item, depth + 1)]
    if isinstance(cell, Mapping):
        cell = cell.get("path") if absent(cell.get("bytes")) else cell["bytes"]
    return [] if absent(cell) else [cell]


def options_of(cells: Mapping[str, Any], column: str, used: Collection[str] = ()) -> dict[str, str]:
    """A question's options, letter -> text, without empty ones; an empty one hides none that follow it.

    Args:
        cells: of the question.
        column: a list of texts, or an object of them by letter; where there is none, columns A, B, C, ... are taken.
        used: columns that have another use, and so are no options.

    Raises:
        MalformedError: the options are something else, or there are more than letters.
    """
    if column in cells:
        given = _by_letter(cells[column], column)
    else:
        given = {letter: cells[letter] for letter in string.ascii_uppercase if letter in cells and letter not in used}
        given = given if given.keys() & {"A", "B"} else {}  # X and Y alone are no options
    return {letter: as_text(text, f"{column} {letter}") for letter, text in given.items() if not absent(text)}


def _by_letter(value: Any, column: str) -> Mapping[str, Any]:
    if absent(value):
        return {}
    if isinstance(value, Mapping) and set(value) <= set(string.ascii_uppercase):
        return value
    items = as_list(value)
    if items is None or len(items) > len(string.ascii_uppercase):
        raise MalformedError(f"'{column}' should be a list of up to 26 options, got {brief(value)}")
    return dict(zip(string.ascii_uppercase, items, strict=False))


def target_of(value: Any, kind: str, options: Mapping[str, str], column: str) -> Any:
    """What a scorer compares with; None where the answer is withheld.

    Args:
        value: the cell of the answer.
        kind: how it is written; "" is a letter (or text) of an option where the question has options, else what stands
            there: a text, or a list of accepted ones.
        options: of the question, letter -> text.
        column: for messages.

    Raises:
        MalformedError: it is not written like that, or is none of the options.
    """
    return None if blank(value) else _READERS[kind](value, options, column)


def blank(value: Any) -> bool:
    """Whether an answer's cell holds nothing: an absent value, spaces, or a list of nothing else."""
    if absent(value) or (isinstance(value, str) and not value.strip()):
        return True
    items = as_list(value)
    return items is not None and all(absent(item) for item in items)


def yes_no(value: Any) -> str | None:
    """``yes`` or ``no`` where a value says so in one of the usual ways (``True``, 1, ``Y``, 是), else None."""
    if not isinstance(value, (str, int, float)):
        return None
    return _YES_NO.get(unicodedata.normalize("NFKC", str(value)).strip().rstrip(".。!").strip().casefold())


def letter_of(value: Any, options: Mapping[str, str], column: str) -> str:
    """The letter of the option that an answer names: by its letter, in any case and brackets, or by its own text.

    Args:
        value: the answer.
        options: letter -> text.
        column: for messages.

    Raises:
        MalformedError: it names none, or may mean several: a number may be an index from 0 or from 1.
    """
    text = as_text(value, column).strip()
    if text in options:
        return text
    lettered = _LETTERED.fullmatch(text)
    found = {
        *_letters(text.strip("()[]{}<>.:,; "), options),
        *(letter for letter, option in options.items() if option.strip() == text),
        *(_letters(lettered[1], options) if lettered and _same(lettered[2], options.get(lettered[1].upper())) else ()),
    } or {letter for letter, option in options.items() if _same(option, text)}
    if _NUMBER.fullmatch(text) and 0 <= float(text) <= len(options):
        number, letters = int(float(text)), list(options)
        counted = {letters[place] for place in (number - 1, number) if 0 <= place < len(letters)}
        if len(found) != 1 or found != found | counted:
            raise MalformedError(
                f"'{column}' {brief(value)} may count the options from 0 or from 1, or be the text of one; "
                "data.answer says which: index (from 0), option or letter"
            )
    if len(found) > 1:
        raise MalformedError(f"'{column}' {brief(value)} may mean {' or '.join(sorted(found))}")
    return _chosen("".join(found), value, options, column)


def _letters(text: str, options: Mapping[str, str]) -> list[str]:
    return [text.upper()] if len(text) == 1 and text.upper() in options else []


def _same(text: str, other: str | None) -> bool:
    return other is not None and text.strip().casefold() == other.strip().casefold()


def _open(value: Any, options: Mapping[str, str], column: str) -> Any:
    """An answer of which nothing is declared."""
    if options:
        return option_letter(value, options, column)
    return value if isinstance(value, (list, tuple)) else as_text(value, column)


def option_letter(value: Any, options: Mapping[str, str], column: str = "answer") -> str:
    """As `letter_of`, of a value that may also stand alone in a list."""
    items = as_list(value)
    if items is not None and value not in options.values():
        if len(items) != 1:
            raise MalformedError(
                f"'{column}' should be one of the options, got {brief(value)}; data.answer says how answers are written"
            )
        value = items[0]
    return letter_of(value, options, column)


def _text(value: Any, options: Mapping[str, str], column: str) -> Any:
    """A text; one that looks like a list of anything but texts is one accepted answer and no list of them."""
    text, items = as_text(value, column), as_list(value)
    return text if items is None or all(isinstance(item, str) for item in items) else [text]


def _yes_no(value: Any, options: Mapping[str, str], column: str) -> str:
    said = yes_no(value)
    if said is None:
        raise MalformedError(f"'{column}' should be yes or no, got {brief(value)}")
    return said


def _letter(value: Any, options: Mapping[str, str], column: str) -> str:
    return _chosen(as_text(value, column).strip().strip("().").upper(), value, options, column)


def _index(value: Any, options: Mapping[str, str], column: str) -> str:
    text = as_text(value, column).strip()
    index = int(float(text)) if _INDEX.fullmatch(text) else len(string.ascii_uppercase)
    return _chosen(string.ascii_uppercase[index : index + 1], value, options, column)


def _option(value: Any, options: Mapping[str, str], column: str) -> str:
    wanted = as_text(value, column).strip()
    matching = [letter for letter, text in options.items() if text.strip() == wanted]
    if len(matching) > 1:
        raise MalformedError(f"'{column}' is the text of several options: {', '.join(matching)}")
    return _chosen("".join(matching), value, options, column)


def _chosen(letter: str, value: Any, options: Mapping[str, str], column: str) -> str:
    """A letter that is one of the options."""
    if letter in options:
        return letter
    letters = ", ".join(options) or "(there are none)"
    raise MalformedError(
        f"'{column}' {brief(value)} is none of the options {letters}; data.answer says how answers are written"
    )


def _list(value: Any, options: Mapping[str, str], column: str) -> list[str]:
    """Accepted answers; where some records have one alone, it needs no brackets."""
    items = as_list(value)
    if items is None and isinstance(value, str) and value.lstrip().startswith("["):
        raise MalformedError(f"'{column}' should be a list of accepted answers, got {brief(value)}")
    return [as_text(item, column) for item in ([value] if items is None else items)]


def _box(value: Any, options: Mapping[str, str], column: str) -> list[float]:
    numbers: Sequence[Any] = as_list(value) or ()
    if len(numbers) != 4 or not all(type(n) in (int, float) and abs(n) < _EXACT for n in numbers):
        raise MalformedError(f"'{column}' should be a list of four numbers, got {brief(value)}")
    return [float(n) for n in numbers]


_READERS: dict[str, Callable[[Any, Mapping[str, str], str], Any]] = {
    "": _open,
    "text": _text,
    "yes_no": _yes_no,
    "letter": _letter,
    "index": _index,
    "option": _option,
    "list": _list,
    "box": _box,
}
