"""One request over the OpenAI chat protocol, through the official client, with its failures sorted by what helps.

Judges and models behind an endpoint (``pipeline/models/endpoint.py``) both ask through it. This is the boundary to a
server that nobody here controls: every text that comes back, of the server or of the client library's errors, passes
`Connection._said` or the redactor, so that nothing behind it can hold the key.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from configs.common.words import shown

from .base import JudgeError
from .options import Server
from .redaction import Redactor

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HELP = {
    401: "is the key right?",
    403: "may this key use the model?",
    404: "is there such a model, and does the address end as it should (/v1)?",
}
_RETRIED_STATUS = (408, 409, 425)
_FILTERS = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed")
"""Codes of requests that a filter refused: OpenAI's, Azure's and DashScope's."""
_LONGEST_WAIT = 86400.0
_EPOCH = 1e9
"""Seconds; a larger number is a time since 1970."""
_SPAN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?")
_SIZES = (86400, 3600, 60, 1, 0.001)
_LONGEST = 500
"""Characters of an error that are kept: some servers answer with a whole web page."""
_MOST_TOKENS = 10**9
"""Tokens of one request above which a server's count is no count."""


class TemporaryError(Exception):
    """Trying again may help.

    Attributes:
        wait: seconds that the server asks to wait; 0 if it does not say.
        crowded: whether the server has too many requests.
    """

    def __init__(self, message: str, wait: float = 0.0, *, crowded: bool = False) -> None:
        super().__init__(message)
        self.wait, self.crowded = wait, crowded


class RefusedError(Exception):
    """This request will never be answered; others may."""


class FilteredError(RefusedError):
    """A content filter of the server refused the request."""


class JudgeLostError(Exception):
    """No request will be answered."""


@dataclass(frozen=True, kw_only=True)
class ServerReply:
    """A reply with what it took.

    Attributes:
        text: the message.
        input_tokens: of the prompt, as the server counted; 0 if it does not say.
        output_tokens: of the reply.
    """

    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a server sent, whatever it was.

    Attributes:
        text: the message; None where it has none.
        finish: why it ended, in lower case: ``stop``, ``length``, ``content_filter``, ...; "" where nothing says it.
        refusal: what the model says of its refusal; "" for none.
        thought: whether the message holds thoughts of the model apart from its text.
        input_tokens: of the prompt, as the server counted; 0 if it does not say.
        output_tokens: of the reply.
    """

    text: str | None
    finish: str
    refusal: str
    thought: bool
    input_tokens: int
    output_tokens: int


class Connection:
    """A server and a model on it.

    Attributes:
        redact: takes the key out of a text.

    Args:
        server: which.
        environ: the process environment, for the key.
        who: what messages call it.

    Raises:
        JudgeError: the client library is missing, or the key is none that can be sent.
    """

    def __init__(self, server: Server, environ: Mapping[str, str], who: str = "the judge") -> None:
        try:
            import openai
        except ImportError:
            raise JudgeError(f"{who} needs the package openai: pip install openai") from None
        self._errors, self._who = openai, who
        key = key_of(server, environ)
        self.redact = Redactor(key)
        self._address = (server.base_url or OPENAI_URL).rstrip("/")
        self.place = self.redact(self._address)
        self.model = server.model
        self.answered_as = self._said(self.model)
        self._unsupported: set[str] = set()
        local = urlsplit(self._address).hostname in _LOOPBACK
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=self._address,
            timeout=server.timeout,
            max_retries=0,
            # A proxy of the environment cannot reach a server on this machine.
            http_client=openai.DefaultHttpxClient(trust_env=False) if local else None,
        )

    @property
    def name(self) -> str:
        """Model and place, and what of our settings the model does not take."""
        note = ", at its own temperature" if "temperature" in self._unsupported else ""
        return f"{self._said(self.model)} at {self.place}{note}"

    def send(self, prompt: str, temperature: float, max_tokens: int) -> ServerReply:
        """Send one message and wait for the reply.

        Raises:
            TemporaryError, RefusedError, JudgeLostError: see there.
        """
        settings = {"temperature": temperature, "max_tokens": max_tokens}
        found = self.complete([{"role": "user", "content": prompt}], settings)
        if found.text is None:
            raise TemporaryError(f"{self._who}'s reply holds no text{f' ({found.finish})' if found.finish else ''}")
        if not found.text.strip() and found.finish == "length":
            raise RefusedError(f"{self._who} used up its tokens before it said anything; allow it more (max_tokens)")
        return ServerReply(text=found.text, input_tokens=found.input_tokens, output_tokens=found.output_tokens)

    def complete(self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Completion:
        """Send messages and wait for what comes.

        Args:
            messages: as the protocol has them.
            settings: further arguments of the client's ``create``; those that the model does not take are left out
                from then on, and ``max_tokens`` becomes ``max_completion_tokens``.

        Raises:
            TemporaryError, RefusedError, FilteredError, JudgeLostError: see there.
        """
        errors, given = self._errors, self._supported(settings)
        create: Any = self._client.chat.completions.create
        try:
            reply = create(model=self.model, messages=list(messages), **given)
        except errors.APITimeoutError:
            raise TemporaryError(f"{self._who} did not reply in time") from None
        except errors.APIConnectionError as error:
            raise TemporaryError(f"no connection to {self._who}: {self._said(error.__cause__ or error)}") from None
        except errors.APIStatusError as error:
            if (name := _not_taken(error, given)) is not None:
                self._unsupported.add(name)
                return self.complete(messages, settings)
            raise _sorted(error, self._said(error), self._who) from None
        except (errors.APIError, ValueError) as error:
            raise TemporaryError(f"{self._who}'s reply is no JSON: {self._said(error)}") from None
        except Exception as error:  # noqa: BLE001 - whatever else the library raises may hold the key
            raise TemporaryError(f"the request fails: {type(error).__name__}: {self._said(error)}") from None
        return self._completion(reply)

    def _said(self, what: object) -> str:
        """What a server or the client library says, without the key and not too long to be read."""
        return shown(self.redact(str(what)), _LONGEST)

    def _supported(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings under the names that the model takes; newer models of OpenAI dropped some."""
        length = "max_completion_tokens" if "max_tokens" in self._unsupported else "max_tokens"
        renamed = {length if name == "max_tokens" else name: value for name, value in settings.items()}
        return {name: value for name, value in renamed.items() if name not in self._unsupported}

    def _completion(self, reply: Any) -> Completion:
        """A reply, whatever a server may have sent in its place.

        Raises:
            TemporaryError: it is no completion.
        """
        choices = getattr(reply, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            raise TemporaryError(f"{self._who}'s reply holds no text")
        text, finish = getattr(message, "content", None), getattr(choice, "finish_reason", None)
        refusal = getattr(message, "refusal", None)
        thoughts = (getattr(message, name, None) for name in ("reasoning", "reasoning_content"))
        model = getattr(reply, "model", None)
        self.answered_as = self._said(model if isinstance(model, str) and model else self.model)
        usage = getattr(reply, "usage", None)
        return Completion(
            text=self.redact(text) if isinstance(text, str) else None,
            finish=self._said(finish).lower() if finish else "",
            refusal=self._said(refusal) if refusal else "",
            thought=any(isinstance(thought, str) and thought for thought in thoughts),
            input_tokens=_count(usage, "prompt_tokens"),
            output_tokens=_count(usage, "completion_tokens"),
        )


def key_of(server: Server, environ: Mapping[str, str]) -> str:
    """The key that the environment holds, without spaces and line ends around it; "" if there is none.

    Raises:
        JudgeError: it holds characters that no HTTP header can carry; the message does not show it.
    """
    variable = server.key_variable
    key = environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise JudgeError(
            f"the key in the environment variable {variable} holds characters other than printable "
            "ASCII; is it copied whole?"
        )
    return key


def _not_taken(error: openai.APIStatusError, settings: Mapping[str, Any]) -> str | None:
    """The setting that a server does not take; None where its error is another one."""
    if error.status_code not in (400, 422):
        return None
    if isinstance(error.param, str) and error.param in settings:
        return error.param
    named = "max_completion_tokens" in str(error.message) and "max_tokens" in settings
    return "max_tokens" if named else None


def _sorted(error: openai.APIStatusError, said: str, who: str) -> Exception:
    """An error status as the failure it means; ``said`` is its text without the key."""
    status = error.status_code
    if status == 429 and error.code == "insufficient_quota":
        return JudgeLostError(f"the account has no credit left: {said}")
    if status == 429 or status in _RETRIED_STATUS or status >= 500:
        wait = wait_of(error.response.headers, datetime.datetime.now(datetime.UTC), limited=status == 429)
        return TemporaryError(f"{who} answers {said}", wait, crowded=status in (429, 503, 529))
    if str(error.code).lower() in _FILTERS or str(error.type).lower() in _FILTERS:
        return FilteredError(f"a content filter of {who} refuses this request: {said}")
    if status in _HELP:
        return JudgeLostError(f"{who} refuses: {said}; {_HELP[status]}")
    return RefusedError(f"{who} refuses this request: {said}")


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if type(value) is int and 0 < value < _MOST_TOKENS else 0


def wait_of(headers: Mapping[str, str], now: datetime.datetime, *, limited: bool = True) -> float:
    """Seconds that a server asks to wait, up to a day; 0 where it says nothing that can be read.

    Args:
        headers: of its reply: ``retry-after-ms``, ``retry-after`` (seconds or a date), or, of a rate limit, when what
            is used up is there again (``x-ratelimit-reset-requests`` and ``-tokens``, as ``6m0s``, seconds or a time).
        now: with its zone.
        limited: whether the reply is about a rate limit.
    """
    asked = [
        _seconds(headers.get("retry-after-ms", ""), now, 0.001),
        _seconds(headers.get("retry-after", ""), now),
    ]
    found = next((wait for wait in asked if wait is not None), None)
    if found is None and limited:
        found = _until_reset(headers, now)
    return min(max(found or 0.0, 0.0), _LONGEST_WAIT)


def _until_reset(headers: Mapping[str, str], now: datetime.datetime) -> float | None:
    """Seconds until a limit that is used up is reset; where none says so, until the first that is."""
    used: list[float] = []
    others: list[float] = []
    for name in ("", "-requests", "-tokens"):
        if (wait := _seconds(headers.get(f"x-ratelimit-reset{name}", ""), now)) is not None:
            left = headers.get(f"x-ratelimit-remaining{name}", "").strip()
            (used if left == "0" else others).append(wait)
    return max(used) if used else min(others, default=None)


def _seconds(text: str, now: datetime.datetime, unit: float = 1.0) -> float | None:
    """A time to wait, written as a number, as ``1h2m3.5s`` or as a date; None where it is none of them."""
    text = text.strip()[:_LONGEST]
    if re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text):
        number = float(text) * unit
        if number < _EPOCH:
            return number
        return number / (1000 if number > 1000 * _EPOCH else 1) - now.timestamp()
    if text and (parts := _SPAN.fullmatch(text)):
        return sum(float(part) * size for part, size in zip(parts.groups(), _SIZES, strict=True) if part)
    for read in (parsedate_to_datetime, datetime.datetime.fromisoformat):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() - now.timestamp()
    return None


def pause_before(attempt: int, backoff: float, wanted: float, longest: float) -> float:
    """Seconds before the next try: doubled each time and scattered, and at least as long as the server wants.

    Args:
        attempt: tries that failed before, from 0.
        backoff: seconds after the first.
        wanted: seconds that the server asks for.
        longest: most seconds.
    """
    pause: float = backoff * 2 ** min(attempt, 30) * random.uniform(0.75, 1.25)
    return min(longest, max(pause, wanted))
