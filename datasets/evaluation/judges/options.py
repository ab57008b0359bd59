"""Which judge to ask and how: from the configuration, else from the environment, else the defaults.

Every setting has a variable, ``COLLAVO_JUDGE_`` and its name (``COLLAVO_JUDGE_MODEL``). A key is only ever taken from
the environment, since configurations are saved beside results. ``OPENAI_BASE_URL`` is heeded as by the client library.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...options import build_options
from .base import JudgeError

PREFIX = "COLLAVO_JUDGE_"


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
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise JudgeError(f"judge: base_url must begin with http:// or https://, but is {self.base_url!r}")
        for name, least in (("concurrency", 1), ("attempts", 1), ("give_up_after", 1), ("timeout", 0.001)):
            if getattr(self, name) < least:
                raise JudgeError(f"judge: {name} must be at least {least}, not {getattr(self, name)}")
        for name in ("temperature", "backoff", "price_input", "price_output", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise JudgeError(f"judge: {name} must not be negative, but is {value}")


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
        raise JudgeError(f"environment variable {variable}: expected a number, got {text!r}") from None
