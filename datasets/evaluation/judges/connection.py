"""One request over the OpenAI chat protocol, through the official client, with its failures sorted by what helps.

This is the boundary to a server that nobody here controls: every text that comes back, of the server or of the client
library's errors, passes `Connection._said` or the redactor, so that nothing behind it can hold the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from configs.common.words import shown

from .base import JudgeError
from .options import JudgeConfig, settled
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
_LONGEST = 500
"""Characters of an error that are kept: some servers answer with a whole web page."""
_MOST_TOKENS = 10**9
"""Tokens of one request above which a server's count is no count."""


class TemporaryError(Exception):
    """Trying again may help.

    Attributes:
        wait: seconds that the server asks to wait; 0 if it does not say.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class RefusedError(Exception):
    """This request will never be answered; others may."""


class JudgeLostError(Exception):
    """No request will be answered."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply with what it took.

    Attributes:
        text: the message.
        input_tokens: of the prompt, as the server counted; 0 if it does not say.
        output_tokens: of the reply.
    """

    text: str
    input_tokens: int
    output_tokens: int


class Connection:
    """A server and a model on it.

    Attributes:
        redact: takes the key out of a text.

    Args:
        judge: which; resolved.
        environ: the process environment, for the key.

    Raises:
        JudgeError: the client library is missing, or the key is none that can be sent.
    """

    def __init__(self, judge: JudgeConfig, environ: Mapping[str, str]) -> None:
        try:
            import openai
        except ImportError:
            raise JudgeError("a judge needs the package openai: pip install openai") from None
        self._errors = openai
        key = key_of(judge, environ)
        self.redact = Redactor(key)
        self._address = (judge.BASE_URL or OPENAI_URL).rstrip("/")
        self.place = self.redact(self._address)
        self.model = settled(judge.MODEL)
        self.answered_as = self._said(self.model)
        self._unsupported: set[str] = set()
        local = urlsplit(self._address).hostname in _LOOPBACK
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=self._address,
            timeout=settled(judge.TIMEOUT),
            max_retries=0,
            # A proxy of the environment cannot reach a server on this machine.
            http_client=openai.DefaultHttpxClient(trust_env=False) if local else None,
        )

    @property
    def name(self) -> str:
        """Model and place, and what of our settings the model does not take."""
        note = ", at its own temperature" if "temperature" in self._unsupported else ""
        return f"{self._said(self.model)} at {self.place}{note}"

    def send(self, prompt: str, temperature: float, max_tokens: int) -> Answer:
        """Send one message and wait for the reply.

        Raises:
            TemporaryError, RefusedError, JudgeLostError: see there.
        """
        errors = self._errors
        settings = self._settings(temperature, max_tokens)
        try:
            reply: Any = self._client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": prompt}], **settings
            )
        except errors.APITimeoutError:
            raise TemporaryError("the judge did not reply in time") from None
        except errors.APIConnectionError as error:
            raise TemporaryError(f"no connection to the judge: {self._said(error.__cause__ or error)}") from None
        except errors.APIStatusError as error:
            if error.status_code == 400 and isinstance(error.param, str) and error.param in settings:
                self._unsupported.add(error.param)
                return self.send(prompt, temperature, max_tokens)
            raise _sorted(error, self._said(error)) from None
        except (errors.APIError, ValueError) as error:
            raise TemporaryError(f"the judge's reply is no JSON: {self._said(error)}") from None
        except Exception as error:  # noqa: BLE001 - whatever else the library raises may hold the key
            raise TemporaryError(f"the request fails: {type(error).__name__}: {self._said(error)}") from None
        return self._answer(reply)

    def _said(self, what: object) -> str:
        """What a server or the client library says, without the key and not too long to be read."""
        return shown(self.redact(str(what)), _LONGEST)

    def _settings(self, temperature: float, max_tokens: int) -> dict[str, Any]:
        """Temperature and length under the names that the model takes; newer models of OpenAI dropped two of them."""
        length = "max_completion_tokens" if "max_tokens" in self._unsupported else "max_tokens"
        settings = {length: max_tokens, "temperature": temperature}
        return {name: value for name, value in settings.items() if name not in self._unsupported}

    def _answer(self, reply: Any) -> Answer:
        """The text of a reply, whatever a server may have sent in its place.

        Raises:
            TemporaryError: it is no completion.
        """
        choices = getattr(reply, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        text = getattr(getattr(choice, "message", None), "content", None)
        if not isinstance(text, str):
            reason = getattr(choice, "finish_reason", None)
            raise TemporaryError(f"the judge's reply holds no text{f' ({self._said(reason)})' if reason else ''}")
        if not text.strip() and getattr(choice, "finish_reason", None) == "length":
            raise RefusedError("the judge used up its tokens before it said anything; allow it more (max_tokens)")
        model = getattr(reply, "model", None)
        self.answered_as = self._said(model if isinstance(model, str) and model else self.model)
        usage = getattr(reply, "usage", None)
        return Answer(
            text=self.redact(text),
            input_tokens=_count(usage, "prompt_tokens"),
            output_tokens=_count(usage, "completion_tokens"),
        )


def key_of(judge: JudgeConfig, environ: Mapping[str, str]) -> str:
    """The key that the environment holds, without spaces and line ends around it; "" if there is none.

    Raises:
        JudgeError: it holds characters that no HTTP header can carry; the message does not show it.
    """
    variable = settled(judge.KEY_VARIABLE)
    key = environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise JudgeError(
            f"judge: the key in the environment variable {variable} holds characters other than printable "
            "ASCII; is it copied whole?"
        )
    return key


def _sorted(error: openai.APIStatusError, said: str) -> Exception:
    """An error status as the failure it means; ``said`` is its text without the key."""
    status = error.status_code
    if status == 429 and error.code == "insufficient_quota":
        return JudgeLostError(f"the account has no credit left: {said}")
    if status == 429 or status in _RETRIED_STATUS or status >= 500:
        return TemporaryError(f"the judge answers {said}", _retry_after(error.response.headers))
    if status in _HELP:
        return JudgeLostError(f"the judge refuses: {said}; {_HELP[status]}")
    return RefusedError(f"the judge refuses this request: {said}")


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if type(value) is int and 0 < value < _MOST_TOKENS else 0


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; 0 where it says nothing, or a date."""
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:
        return 0.0
