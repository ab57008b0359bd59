"""Replies as they are generated: from token ids to pieces of text, to a callback or as an iterator."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from .engine import Engine, Generation, Query, Reply
from .template import reply_text

Heard = Callable[[str], None]
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder shows of a character of which only some bytes are there."""


class TextPieces:
    """Turns token ids into pieces of text that add up to the reply's text.

    White space at the ends of a reply is no part of its text, so a piece never ends with it; it leads the next one.

    Args:
        engine: decodes, and knows what ends a reply.
        heard: called with every piece.
    """

    def __init__(self, engine: Engine, heard: Heard) -> None:
        self._engine, self._heard, self._said, self._ended = engine, heard, "", False
        self._ids: list[int] = []

    def add(self, token: int) -> None:
        """Take the next token."""
        self._ended = self._ended or token in self._engine.end_ids
        if self._ended:
            return
        self._ids.append(token)
        text = reply_text(self._engine.processor.decode(self._ids))
        if not text.endswith(_INCOMPLETE):
            self._say(text)

    def finish(self, text: str) -> None:
        """Take the whole reply, and say what is left of it."""
        self._say(text)

    def _say(self, text: str) -> None:
        if len(text) > len(self._said) and text.startswith(self._said):
            new, self._said = text[len(self._said) :], text
            self._heard(new)


def answer_aloud(engine: Engine, query: Query, generation: Generation, heard: Heard) -> Reply:
    """Answer one question, and hand over its text piece by piece.

    Args:
        engine: see `Engine`.
        query: the question.
        generation: how to search. With several beams nothing is certain before the end, so the text comes in one piece.
        heard: called with every piece; what it raises ends the reply.
    Returns: the same reply as without it; the pieces add up to its text.

    Raises:
        NonFiniteError: the model's scores are not finite.
    """
    pieces = TextPieces(engine, heard)
    watched = replace(generation, on_token=pieces.add if generation.num_beams == 1 else None)
    reply = engine.answer([query], watched)[0]
    pieces.finish(reply.text)
    return reply


class _AbandonedError(Exception):
    """Nobody reads the pieces any more."""


def pieces_of(engine: Engine, query: Query, generation: Generation) -> Iterator[str]:
    """Answer one question; an iterator over the pieces of its text. Leaving it early ends the generation.

    Args:
        engine: not to be used elsewhere meanwhile.
        query: the question.
        generation: how to search.

    Raises:
        NonFiniteError: the model's scores are not finite.
    """
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    left = threading.Event()

    def heard(piece: str) -> None:
        if left.is_set():
            raise _AbandonedError
        pieces.put(piece)

    def work() -> None:
        try:
            answer_aloud(engine, query, generation, heard)
            pieces.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are read
            pieces.put(error)

    thread = threading.Thread(target=work, name="reply", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        left.set()
        thread.join()
