"""Options of multiple-choice questions: the right answer among wrong ones, in an order drawn by chance."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from .facts import Fact

LETTERS = string.ascii_uppercase


def shuffled_options(fact: Fact, rng: np.random.Generator, num: int = 4) -> tuple[list[str], int]:
    """Options of a fact.

    Args:
        fact: its likeliest wrong answers are taken.
        rng: source of chance.
        num: how many options; fewer where the fact has no more wrong answers.
    Returns: the options, and the place of the right one.
    """
    texts = [fact.answer, *dict.fromkeys(fact.wrong)][:num]
    order = [int(i) for i in rng.permutation(len(texts))]
    return [texts[i] for i in order], order.index(0)


def passes(options: Sequence[str], right: int) -> list[tuple[list[str], int]]:
    """A question under every shift of its options, as MMBench asks it: each moves one letter on, the last to A."""
    turned = [(list(options), right)]
    for _ in options[1:]:
        last, place = turned[-1]
        turned.append(([last[-1], *last[:-1]], (place + 1) % len(options)))
    return turned
