"""From what a model said to the number that it means; None where there is none.

`lenient` is what a reader would have understood: "1,000", "3.5 cm", "x = 4, so the answer is 4", "１２", "3/4", "−2",
"there are three of them". A `Quantity` also knows "%", "million", "$" and "years".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

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


_FACTORS = {
    **dict.fromkeys(("%", "percent", "per cent", "percentage points", "pct"), 0.01),
    **dict.fromkeys(("thousand", "k"), 1e3),
    **dict.fromkeys(("million", "millions", "mn"), 1e6),
    **dict.fromkeys(("billion", "billions", "bn"), 1e9),
    **dict.fromkeys(("trillion", "trillions", "tn"), 1e12),
}
_FACTOR = "|".join(map(re.escape, sorted(_FACTORS, key=len, reverse=True)))
_SCALED = re.compile(rf"\s*(?P<factor>{_FACTOR})(?!\w)", re.IGNORECASE)
_QUANTITY = re.compile(
    r"(?:about|around|approximately|approx\.?|~|≈)?\s*"
    r"(?P<sign>[-+]?)\s*(?P<currency>(?:US)?\$|[€£¥₹]|USD|EUR|GBP)?\s*"
    r"(?P<number>[-+]?(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d*)?|[-+]?\.\d+)"
    rf"(?:\s*(?P<factor>{_FACTOR})(?!\w))?"
    r"(?:\s*(?P<unit>[^\W\d_]+(?:[ /][^\W\d_]+)?|[€£¥₹]))?",
    re.IGNORECASE,
)
_ORDINALS = ("st", "nd", "rd", "th")
_LONGEST = 60
"""Characters of a quantity; what is longer is a sentence."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number with what stands around it.

    Attributes:
        number: as written.
        factor: what it is multiplied by: 0.01 for percent, a million, ...; 1 where nothing says.
        unit: its currency or unit, lower case, without a plural's s; "" where nothing says.
    """

    number: float
    factor: float = 1.0
    unit: str = ""

    def readings(self, other: Quantity) -> tuple[tuple[float, float], ...]:
        """Pairs of numbers under which this and another may be compared; none where their units differ.

        Where one of them alone has a factor, the other may have meant it ("2 %" and "2") or have applied it (0.02).
        """
        if self.unit and other.unit and self.unit != other.unit:
            return ()
        scaled = self.number * self.factor, other.number * other.factor
        if self.factor == other.factor:
            return ((self.number, other.number),)
        return (scaled, (self.number, other.number)) if 1.0 in (self.factor, other.factor) else (scaled,)


def quantity(text: str) -> Quantity | None:
    """A text that is one number, perhaps with thousands separators, percent or a factor, and a currency or a unit.

    "1,000", "2 %", "$5 million", "12 years", "two"; None for any other ("18-29", "2nd", "Q1 2019").
    """
    written = " ".join(plain(text).split())
    if written.lower() in _WORDS:
        return Quantity(number=float(_WORDS.index(written.lower())))
    found = _QUANTITY.fullmatch(written) if len(written) <= _LONGEST else None
    if not found or (found["unit"] or "").lower() in _ORDINALS or (found["currency"] and len(found["unit"] or "") == 1):
        return None
    number = float(found["number"].replace(",", "").replace(" ", ""))
    return Quantity(
        number=-number if found["sign"] == "-" else number,
        factor=_FACTORS[found["factor"].lower()] if found["factor"] else 1.0,
        unit=_unit(found["currency"] or found["unit"] or ""),
    )


def _unit(word: str) -> str:
    """One spelling of a unit."""
    word = word.lower()
    word = {"usd": "$", "us$": "$", "dollars": "$", "dollar": "$", "eur": "€", "euros": "€", "euro": "€"}.get(
        word, word
    )
    return word.removesuffix("s") if len(word) > 1 else word


def lenient_quantity(text: str) -> Quantity | None:
    """A text's `quantity`, or what `lenient` finds in it with the percent sign or factor after it."""
    whole = quantity(text)
    if whole is not None:
        return whole
    written = plain(text)
    found = _find(written)
    if found is None:
        return None
    scaled = _SCALED.match(written, found.end())
    return Quantity(number=_value(found), factor=_FACTORS[scaled["factor"].lower()] if scaled else 1.0)


def lenient(text: str) -> float | None:
    """The number after the last "answer is", "=", "there are" and the like, else the last one of the text."""
    found = _find(plain(text))
    return None if found is None else _value(found)


def plain(text: str) -> str:
    """Full-width forms made ASCII, and one minus sign for all."""
    return unicodedata.normalize("NFKC", text).translate(_MINUS)


def _find(written: str) -> re.Match[str] | None:
    for cue in reversed(list(_CUE.finditer(written))):
        found = _NUMBER.search(written, cue.end())
        if found:
            return found
    numbers = list(_NUMBER.finditer(written))
    return numbers[-1] if numbers else None


def _value(found: re.Match[str]) -> float:
    if found["word"]:
        return float(_WORDS.index(found["word"].lower()))
    if found["top"]:
        return int(found["top"]) / int(found["bottom"])
    return float(found["digits"].replace(",", ""))
