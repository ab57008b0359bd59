"""Which judge to ask and how: from the configuration, else from the environment, else the defaults.

Every setting has a variable, ``COLLAVO_JUDGE_`` and its name (``COLLAVO_JUDGE_MODEL``). A key is only ever taken from
the environment, since configurations are saved next to results. ``OPENAI_BASE_URL`` is heeded as by the client library.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from configs.common.field_types import NonNegativeFloat, PathText, PositiveInt
from configs.common.words import quoted

from .base import JudgeError
from .redaction import Redactor

T = TypeVar("T")
PREFIX = "COLLAVO_JUDGE_"
_SURELY_A_KEY = 12
"""Characters from which a key is no placeholder that may stand in a setting by chance."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIKE_A_KEY = re.compile(r"sk[-_].*|(?=.*[a-z])(?=.*[0-9]).{20,}", re.DOTALL)
"""Names of variables are short, or in capitals."""


def _address(url: str) -> str:
    """An address of a server, checked; messages do not show it, since it may hold a password.

    Raises:
        ValueError: it is none.
    """
    if fault := address_fault(url):
        raise ValueError(fault)
    return url


def _key_variable(name: str) -> str:
    """The name of the variable that holds a key, checked.

    Raises:
        ValueError: it is none, or perhaps the key itself.
    """
    if fault := key_variable_fault(name):
        raise ValueError(fault)
    return name


@dataclass(frozen=True)
class Server:
    """A server of the OpenAI chat protocol.

    Attributes:
        model: its model's name.
        base_url: its address, ending in /v1; None for OpenAI's own.
        key_variable: environment variable that holds the key.
        timeout: seconds to wait for it to go on.
    """

    model: str
    base_url: str | None
    key_variable: str
    timeout: float


Address = Annotated[str, AfterValidator(_address)]
"""A setting that is the address of a server, see `address_fault`."""
KeyVariable = Annotated[str, AfterValidator(_key_variable)]
"""A setting that names the environment variable of a key, see `key_variable_fault`."""


@dataclass(kw_only=True)
class JudgeConfig:
    """The language model that helps to score MM-Vet, MathVista and the like, over the OpenAI chat protocol.

    What is None comes from the environment (``COLLAVO_JUDGE_MODEL``, ...), else it is the default; see `resolved`. The
    key itself is only ever taken from the environment.

    Attributes:
        USE: auto: where a key or a BASE_URL is set; always: nothing starts without; never: by the offline rules.
        MODEL: its name on the server; MM-Vet and MathVista were defined with gpt-4-0613, the default.
        BASE_URL: of the server, ending in /v1; None for OpenAI's own.
        KEY_VARIABLE: environment variable that holds the key; a server of one's own may need none.
        TEMPERATURE: of the first try; it rises when a reply cannot be read.
        CONCURRENCY: requests that are under way at a time.
        TIMEOUT: seconds to wait for the server to go on.
        ATTEMPTS: how often a request is tried before its sample stays unscored.
        BACKOFF: seconds before the second try; doubled each time, up to a minute.
        GIVE_UP_AFTER: requests that fail in a row before the rest is not tried.
        MAX_TOKENS: longest reply in tokens, instead of what each request allows; reasoning models need thousands.
        PRICE_INPUT: US dollars per million tokens sent, to report the cost.
        PRICE_OUTPUT: US dollars per million tokens received.
        CACHE: folder of replies; what is found there is not asked again. Empty: none are kept.

    Raises:
        JudgeError: the address holds a secret, or KEY_VARIABLE may be the key itself.
    """

    USE: Literal["auto", "always", "never"] = "auto"
    MODEL: str | None = None
    BASE_URL: Address | None = None
    KEY_VARIABLE: KeyVariable | None = None
    TEMPERATURE: NonNegativeFloat | None = None
    CONCURRENCY: Annotated[int, Field(ge=1, le=1024)] | None = None
    TIMEOUT: Annotated[float, Field(ge=0.001, le=86400)] | None = None
    ATTEMPTS: PositiveInt | None = None
    BACKOFF: Annotated[float, Field(ge=0, le=86400)] | None = None
    GIVE_UP_AFTER: PositiveInt | None = None
    MAX_TOKENS: PositiveInt | None = None
    PRICE_INPUT: NonNegativeFloat | None = None
    PRICE_OUTPUT: NonNegativeFloat | None = None
    CACHE: PathText = "outputs/judge_cache"

    def __post_init__(self) -> None:
        """Refuse secrets in wrong places."""
        if self.BASE_URL is not None and (fault := address_fault(self.BASE_URL)):
            raise JudgeError(f"JUDGE.BASE_URL: {fault}")
        if self.KEY_VARIABLE is not None and (fault := key_variable_fault(self.KEY_VARIABLE)):
            raise JudgeError(f"JUDGE.KEY_VARIABLE: {fault}")

    @property
    def server(self) -> Server:
        """Where the judge is asked; of a resolved configuration."""
        return Server(settled(self.MODEL), self.BASE_URL, settled(self.KEY_VARIABLE), settled(self.TIMEOUT))

    def resolved(self, environ: Mapping[str, str]) -> JudgeConfig:
        """The same with what is None from the environment or by default; see `settled`.

        Args:
            environ: the process environment.

        Raises:
            JudgeError: a setting or a variable is no such value, or out of range; it is named.
        """
        found: dict[str, Any] = {}
        for name, hint in typing.get_type_hints(JudgeConfig, include_extras=True).items():
            value, where = getattr(self, name), f"JUDGE.{name}"
            for variable in (PREFIX + name, *(["OPENAI_BASE_URL"] if name == "BASE_URL" else [])):
                if value is None and environ.get(variable):
                    value, where = environ[variable], f"environment variable {variable}"
            found[name] = _DEFAULTS.get(name) if value is None else _checked(value, hint, where)
        return JudgeConfig(**found)


_DEFAULTS: Mapping[str, Any] = {
    "MODEL": "gpt-4-0613",
    "KEY_VARIABLE": "OPENAI_API_KEY",
    "TEMPERATURE": 0.0,
    "CONCURRENCY": 8,
    "TIMEOUT": 60.0,
    "ATTEMPTS": 6,
    "BACKOFF": 1.0,
    "GIVE_UP_AFTER": 20,
}


def settled(value: T | None) -> T:
    """A setting of a resolved judge that has a default, so that it is never None.

    Raises:
        ValueError: it is, because nobody resolved the judge.
    """
    if value is None:
        raise ValueError("the settings of a judge are to be resolved first, see JudgeConfig.resolved")
    return value


def _checked(value: Any, hint: Any, where: str) -> Any:
    """A value or text as a setting's type.

    Raises:
        JudgeError: it is none, or out of range.
    """
    try:
        return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "value_error":
            raise JudgeError(f"{where}: {first['ctx']['error']}") from None
        if "greater" in first["type"] or "less" in first["type"]:
            said = first["msg"].removeprefix("Input should be ")
            raise JudgeError(f"{where}: must be {said}, got {quoted(value)}") from None
        kind = "a text" if first["type"].startswith("string") else "a number"
        raise JudgeError(f"{where}: expected {kind}, got {quoted(value)}") from None


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
            "into the environment variable that KEY_VARIABLE names (OPENAI_API_KEY)"
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
    variable = variable or environ.get(f"{PREFIX}KEY_VARIABLE") or _DEFAULTS["KEY_VARIABLE"]
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
    key = environ.get(environ.get(f"{PREFIX}KEY_VARIABLE") or _DEFAULTS["KEY_VARIABLE"], "").strip()
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


def is_configured(judge: JudgeConfig, environ: Mapping[str, str]) -> bool:
    """Whether there is anybody to ask: a key, or a server of one's own.

    Args:
        judge: resolved.
        environ: the process environment.
    """
    return bool(environ.get(settled(judge.KEY_VARIABLE)) or judge.BASE_URL)
