"""What an engine answers. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer.

    Attributes:
        text: what was generated, up to the end tag.
        prompt: the whole prompt that was asked, object list and template included.
        num_tokens: tokens generated, the end token included.
        finished: whether it ended by itself, rather than at the token limit.
        margin: smallest gap (log-probability; logit in a greedy search) at any decision of the search: how much the
            numbers would have to change before the reply does.
        close: whether that is so little that rounding could do it, see `collavo.engine.CLOSE_MARGIN`.
        note: what memory forced that can change last digits; "" for nothing.
    """

    text: str
    prompt: str
    num_tokens: int
    finished: bool
    margin: float = field(default=float("inf"), compare=False)
    close: bool = field(default=False, compare=False)
    note: str = field(default="", compare=False)
