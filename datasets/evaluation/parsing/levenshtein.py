"""Edit distance between two texts: how many characters to insert, delete or replace."""

from __future__ import annotations

from collections.abc import Sequence


def distance(left: str, right: str) -> int:
    """Levenshtein distance, in characters (code points)."""
    if left == right:
        return 0
    if len(left) < len(right):
        left, right = right, left
    row = list(range(len(right) + 1))
    for number, character in enumerate(left, start=1):
        diagonal, row[0] = row[0], number
        for index, other in enumerate(right, start=1):
            cost = diagonal + (character != other)
            diagonal = row[index]
            row[index] = min(cost, diagonal + 1, row[index - 1] + 1)
    return row[-1]


def nearest(text: str, choices: Sequence[str]) -> str:
    """The choice with the smallest distance to a text, the first one of equals."""
    return min(choices, key=lambda choice: distance(text, choice))
