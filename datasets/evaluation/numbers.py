"""From what a model said to the number that it means; None where there is none.

`lenient` is what a reader would have understood: "1,000", "3.5 cm", "x = 4, so the answer is 4", "１２", "3/4", "−2",
"there are three of them".
"""

from __future__ import annotations

import re
import unicodedata

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER = re.compile(
    r"(?<![\w.])(?:"
    r"(?P<top>[-+]?\d{1,15})\s*[/⁄]\s*(?P<bottom>[1-9]\d{0,14})(?!\d|[.,/]\d)"
    r"|(?P<digits>[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+(?!\d))(?:\.\d+)?(?:[eE][-+]?\d{1,3}\b)?|[-+]?\.\d+)"
    rf"|(?P<word>{'|'.join(_WORDS)})\b)",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"(?:\b(?:answer|result|value)\b|答案|结果)[^\n.]{0,40}?(?:\bis|=|:|为|是)\s*|[=≈≅]\s*|\bthere\s+(?:are|is|were|was)\s",
    re.IGNORECASE,
)
_MINUS = str.maketrans("−–", "--")


def lenient(text: str) -> float | None:
    """The number after the last "answer is", "=", "there are" and the like, else the last one of the text."""
    plain = unicodedata.normalize("NFKC", text).translate(_MINUS)
    for cue in reversed(list(_CUE.finditer(plain))):
        found = _NUMBER.search(plain, cue.end())
        if found:
            return _value(found)
    numbers = list(_NUMBER.finditer(plain))
    return _value(numbers[-1]) if numbers else None


def _value(found: re.Match[str]) -> float:
    if found["word"]:
        return float(_WORDS.index(found["word"].lower()))
    if found["top"]:
        return int(found["top"]) / int(found["bottom"])
    return float(found["digits"].replace(",", ""))
