"""What a row of another tool's result file says: a reply, and all that tells which question it answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One reply.

    Attributes:
        where: file and line, for messages.
        reply: what the model said; None where there is none.
        error: why there is none.
        ids: what the tool calls the question, perhaps as the release does.
        question: that was asked; "" if the row does not say.
        prompt: the question as the model got it; "" if the row does not say.
        image: name of the image's file, or its stem; "" if the row does not say.
        groups: splits or categories that the question belongs to.
        options: letter -> text, of a multiple-choice question.
        target: the ground truth; "" if the row does not say.
    """

    where: str
    reply: str | None
    error: str | None = None
    ids: tuple[str, ...] = ()
    question: str = ""
    prompt: str = ""
    image: str = ""
    groups: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """The replies of one file or folder.

    Attributes:
        tool: whose it is, for messages.
        rows: in the order of the file.
    """

    tool: str
    rows: Sequence[ResultRow]


_INSTRUCTIONS = (
    "please answer yes or no.",
    "answer the question using a single word or phrase.",
    "answer with the option's letter from the given choices directly.",
    "<image>",
)


@lru_cache(maxsize=65536)
def plain(text: str) -> str:
    """A question without case, extra spaces and the instructions that tools add to it."""
    found = text.casefold()
    for instruction in _INSTRUCTIONS:
        found = found.replace(instruction, " ")
    return " ".join(found.split())


def stem(name: str) -> str:
    """Name of an image without folders and suffix, lower case."""
    last = PurePosixPath(name.replace("\\", "/")).name.casefold()
    return re.sub(r"\.(?:jpe?g|png|gif|bmp|webp|tiff?)$", "", last)


def is_image(name: str) -> bool:
    """Whether a text is the name of an image's file."""
    return stem(name) != PurePosixPath(name.replace("\\", "/")).name.casefold()


def texts(values: Iterable[Any]) -> tuple[str, ...]:
    """The texts and whole numbers among some values, as texts, each once and none empty."""
    kept = (str(v).strip() for v in values if isinstance(v, (str, int)) and not isinstance(v, bool))
    return tuple(dict.fromkeys(value for value in kept if value))
