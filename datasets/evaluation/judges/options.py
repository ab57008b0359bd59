"""Which judge to ask and how: from the configuration, else from the environment, else the defaults.

Every setting has a variable, ``COLLAVO_JUDGE_`` and its name (``COLLAVO_JUDGE_MODEL``). A key is only ever taken from
the environment, since configurations are saved next to results. ``OPENAI_BASE_URL`` is heeded as by the client library.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from configs.common.words import quoted

from ...options import build_options
from .base import JudgeError
from .redaction import Redactor

PREFIX = "COLLAVO_JUDGE_"
_SURELY_A_KEY = 12
"""Characters from which a key is no placeholder that may stand in a setting by chance."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIKE_A_KEY = re.compile(r"sk[-_].*|(?=.*[a-z])(?=.*[0-9]).{20,}", re.DOTALL)
"""Names of variables are short, or in capitals."""


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """A judge.

    Attributes:
        model: its name on the server; MM-Vet and MathVista were defined with gpt-4-0613.
        base_url: of a server that speaks the OpenAI chat protocol, ending in ``/v1``; None for OpenAI's own.
        key_variable: environment variable that holds the key; a server of one's own may need none.
        temperature: of the first try; it rises when a reply cannot be read.
        concurrency: requests that are under way at a time.
        timeout: seconds to wait for the server to go on.
        attempts: how often a request is tried before its sample stays unscored.
        backoff: seconds before the second try; doubled each time, up to a minute.
        give_up_after: requests that fail in a row before the rest is not even tried.
        max_tokens: longest reply in tokens, instead of what each request allows; reasoning models need thousands.
        price_input: US dollars per million tokens sent, to report the cost.
        price_output: US dollars per million tokens received.
        cache: folder of replies; a rerun that finds them there costs nothing.
    """

    model: str = "gpt-4-0613"
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    concurrency: int = 8
    timeout: float = 60.0
    attempts: int = 6
    backoff: float = 1.0
    give_up_after: int = 20
    max_tokens: int | None = None
    price_input: float | None = None
    price_output: float | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges and the address."""
        if self.base_url is not None and (fault := address_fault(self.base_url)):
            raise JudgeError(f"judge: base_url {fault}")
        if fault := key_variable_fault(self.key_variable):
            raise JudgeError(f"judge: key_variable {fault}")
        for name, least in (("concurrency", 1), ("attempts", 1), ("give_up_after", 1), ("timeout", 0.001)):
            if getattr(self, name) < least:
                raise JudgeError(f"judge: {name} must be at least {least}, not {getattr(self, name)}")
        for name in ("temperature", "backoff", "price_input", "price_output", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise JudgeError(f"judge: {name} must not be negative, but is {value}")


def address_fault(url: str) -> str:
    """What keeps a text from being the address of a server; "" for nothing.

    Addresses stand in files and messages, so one with a secret in it is refused, and none is ever shown here.
    """
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if "@" in url or "?" in url or "#" in url:
        return (
            "must be a plain address, without user, password or query, since addresses stand in results; a key belongs "
            "into the environment variable that JUDGE.KEY_VARIABLE names (OPENAI_API_KEY)"
        )
    if not url.startswith(("http://", "https://")):
        return "is no address of a server, which must begin with http:// or https://"
    if not sound or not url.isprintable() or " " in url:
        return "is no address of a server; an example: http://localhost:8000/v1"
    return ""


def key_variable_fault(name: str) -> str:
    """What keeps a text from being the name of a variable, such as being the key itself, which is never shown."""
    if _VARIABLE.fullmatch(name) and not _LIKE_A_KEY.fullmatch(name):
        return ""
    return (
        "must be the name of an environment variable, such as OPENAI_API_KEY, and its value is none; the key itself "
        "belongs into that variable"
    )


def check_no_key(values: Any, variable: str | None, environ: Mapping[str, str]) -> None:
    """Check that no setting holds the key of the environment, since settings are printed and saved next to results.

    Args:
        values: the settings, nested.
        variable: what ``KEY_VARIABLE`` says; None for the environment's or the default.
        environ: the process environment.

    Raises:
        JudgeError: one does; the message names it without its value.
    """
    variable = variable or environ.get(f"{PREFIX}KEY_VARIABLE") or JudgeOptions.key_variable
    key = environ.get(variable, "").strip()
    if len(key) >= _SURELY_A_KEY and (setting := _setting_with(key, values)):
        raise JudgeError(
            f"{setting} holds the key of the environment variable {quoted(variable)}. Settings are saved next to "
            "results: take it out, the judge finds it in the environment"
        )


def without_key(text: str, environ: Mapping[str, str]) -> str:
    """A message of what a user wrote, without the key of the environment that may stand in it.

    Args:
        text: the message.
        environ: the process environment.
    """
    key = environ.get(environ.get(f"{PREFIX}KEY_VARIABLE") or JudgeOptions.key_variable, "").strip()
    return Redactor(key)(text) if len(key) >= _SURELY_A_KEY else text


def _setting_with(key: str, values: Any, name: str = "") -> str:
    """The dotted name of the first setting that holds the key, in its name or value; "" for none."""
    if isinstance(values, str):
        return name * (key in values)
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(values, Mapping):
        if any(key in str(part) for part in values):
            return name or "the configuration"
        items = ((f"{name}.{part}" if name else str(part), value) for part, value in values.items())
    elif isinstance(values, Sequence):
        items = ((name, value) for value in values)
    return next((found for part, value in items if (found := _setting_with(key, value, part))), "")


def judge_options(values: Mapping[str, Any], environ: Mapping[str, str]) -> JudgeOptions:
    """Put the settings of a judge together.

    Args:
        values: setting -> value, in either case; None leaves it to the environment.
        environ: the process environment.

    Raises:
        DataError: an unknown setting, or a value that is not of its type.
    """
    chosen = {name.lower(): value for name, value in values.items() if value is not None}
    kinds = typing.get_type_hints(JudgeOptions)
    for field in dataclasses.fields(JudgeOptions):
        variable = PREFIX + field.name.upper()
        if field.name not in chosen and environ.get(variable):
            chosen[field.name] = _typed(environ[variable], kinds[field.name], variable)
    if "base_url" not in chosen and environ.get("OPENAI_BASE_URL"):
        chosen["base_url"] = environ["OPENAI_BASE_URL"]
    return build_options(JudgeOptions, chosen, "judge")


def is_configured(options: JudgeOptions, environ: Mapping[str, str]) -> bool:
    """Whether there is anybody to ask: a key, or a server of one's own."""
    return bool(environ.get(options.key_variable) or options.base_url)


def _typed(text: str, kind: Any, variable: str) -> str | int | float:
    """The text of a variable as a number where a number is wanted.

    Raises:
        JudgeError: it is none.
    """
    wanted = {kind, *typing.get_args(kind)} & {int, float}
    if not wanted:
        return text
    try:
        number = int(text) if int in wanted else float(text)
        if math.isfinite(number):
            return number
        raise ValueError
    except (ValueError, OverflowError):
        raise JudgeError(f"environment variable {variable}: expected a number, got {quoted(text)}") from None
