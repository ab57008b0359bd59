"""What is asked of a judge and what comes back.

A scorer turns answers into `Request`s, a `Judge` turns those into `Verdict`s, and the scorer turns answers and verdicts
into scores. Only the step in the middle talks to anything, so scores can be made again from recorded verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from configs.common.words import shown

from ...types import DataError, Record, Score

Verdicts = Mapping[str, Mapping[str, str]]
"""What a judge said: id of the record -> part of the request -> verdict."""


class JudgeError(DataError):
    """The judge cannot be used as configured; the message says where it was looked for and what to change."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a judge.

    Attributes:
        record: id of the record that it is about.
        part: which of the record's verdicts it gives, e.g. ``run1``, ``correctness``.
        prompt: the text of the only message.
        parse: from the reply to the verdict; None where the reply holds none, which is then asked again.
        reminder: added to the prompt when it is asked again.
        max_tokens: longest reply in tokens.
    """

    record: str
    part: str
    prompt: str
    parse: Callable[[str], str | None]
    reminder: str
    max_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a request.

    Attributes:
        record: see `Request`.
        part: see `Request`.
        value: the verdict; None if the judge could not be reached or understood.
        reply: its last reply, as it came.
        failure: why there is no verdict.
    """

    record: str
    part: str
    value: str | None
    reply: str = ""
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class UnjudgedScore(Score):
    """The score of an answer that a judge was asked about in vain: neither right nor wrong, left out and counted."""

    value: None = None
    extracted: str = ""
    explanation: str = "no verdict from the judge"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What judging took.

    Attributes:
        asked: replies that came from the server, unreadable ones included.
        cached: requests answered from the cache.
        failed: requests without a verdict.
        input_tokens: of all prompts that were sent, as the server counted.
        output_tokens: of all replies.
        cost: in US dollars; None where no price is configured.
    """

    asked: int = 0
    cached: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    def describe(self) -> str:
        """One line for the reader of a result."""
        cost = "cost unknown, no price is configured" if self.cost is None else f"{self.cost:.4f} US dollars"
        return (
            f"{self.asked} replies, {self.cached} from the cache, {self.failed} without a verdict; "
            f"{self.input_tokens} tokens in, {self.output_tokens} out, {cost}"
        )


class Judge(Protocol):
    """Anything that answers requests."""

    @property
    def name(self) -> str:
        """Model and place, for results."""

    @property
    def identity(self) -> str:
        """Model and place alone: the same for everything that it ever decides."""

    def probe(self) -> str:
        """Ask one trivial thing.

        Returns: the name under which the server answers.

        Raises:
            JudgeError: it cannot be used.
        """

    def ask(self, requests: Sequence[Request]) -> list[Verdict]:
        """Answer requests, one verdict each, in their order; what fails is a verdict without value."""

    @property
    def usage(self) -> Usage:
        """What was spent so far."""


def question_of(record: Record) -> str:
    """The question that a judge is shown.

    Raises:
        DataError: the reader gave none.
    """
    question = record.fields.get("question")
    if question is None:
        raise DataError(f"record {shown(record.id)} has no field 'question': a judge cannot be asked without it")
    return question


def collect(verdicts: Iterable[Verdict]) -> dict[str, dict[str, str]]:
    """Verdicts by record and part; those without a value are left out, and their records stay unscored."""
    found: dict[str, dict[str, str]] = {}
    for verdict in verdicts:
        if verdict.value is not None:
            found.setdefault(verdict.record, {})[verdict.part] = verdict.value
    return found
