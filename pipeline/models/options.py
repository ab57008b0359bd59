"""The ``MODEL`` section of the configuration: which model answers, and where it is. Importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from configs.common.field_types import NonNegativeFloat, PathText, PositiveInt
from datasets.evaluation.judges.options import Address, KeyVariable

ALIASES = {"collavo_model": "collavo"}
"""Names of ``MODEL.NAME`` in the files of the first release."""
AUTO = "auto"


def kind_of_model(name: Any) -> Any:
    """The name of a kind of model, also by what the first release calls it."""
    return ALIASES.get(name, name) if isinstance(name, str) else name


@dataclass
class ImageOptions:
    """How images are sent to a server.

    Attributes:
        DETAIL: the protocol's ``detail`` of an image; None sends none, which leaves it to the server.
        MAX_SIDE: longest side in pixels; larger images are shrunk to it and sent as PNG. None sends an image's own
            bytes, or a PNG of them where servers do not take the format.
    """

    DETAIL: Literal["auto", "low", "high"] | None = None
    MAX_SIDE: Annotated[int, Field(ge=16)] | None = None


@dataclass
class ModelConfig:
    """Which model answers.

    Attributes:
        NAME: collavo; hf, a model of the transformers library; endpoint, a server that speaks the OpenAI chat protocol.
        PATH: checkpoint directory (hf: also a name in the hub's local cache); of an endpoint, the model's name on the
            server. RESUME_FROM is another name for it.
        PROFILE: what belongs to the model, see ``configs/models``: a name there, a YAML file, or auto, which looks at
            the checkpoint's config.json.
        SETTINGS: keys of the profile with other values, like {generation: {num_beams: 1}}.
        REMOTE_CODE: run Python code that lies in the checkpoint (hf); a checkpoint that needs it is refused otherwise.
        DOWNLOAD: fetch a checkpoint that is neither a directory nor whole in the hub's cache (hf).
        DEVICE_MAP: spread a model over several devices (hf): None keeps it whole on the process's own device.
        BASE_URL: address of the server, ending in /v1; None for OpenAI's own.
        KEY_VARIABLE: environment variable that holds the server's key.
        CONCURRENCY: most requests that a process has under way; it starts with few and adapts.
        TIMEOUT: seconds to wait for the server to go on, and, once its reply has begun, for the end of it.
        ATTEMPTS: how often a request is tried before its question counts as failed.
        BACKOFF: seconds before the second try, doubled each time and scattered.
        GIVE_UP_AFTER: questions that fail in a row before the run ends.
        PRICE_INPUT: US dollars per million tokens sent, to estimate and report the cost.
        PRICE_OUTPUT: US dollars per million tokens received.
        MAX_COST: US dollars after which no request is sent any more; what was answered is kept. What earlier sessions
            of the same SAVE_DIR spent on the model counts. Needs both prices.
        EXTRA_BODY: further fields of every request, as the server's documentation has them.
        IMAGE: see `ImageOptions`.
    """

    NAME: Annotated[Literal["collavo", "hf", "endpoint"], BeforeValidator(kind_of_model)] = "collavo"
    PATH: PathText = ""
    PROFILE: PathText = AUTO
    SETTINGS: dict[str, Any] = field(default_factory=dict)
    REMOTE_CODE: bool = False
    DOWNLOAD: bool = False
    DEVICE_MAP: Literal["auto", "balanced", "sequential"] | None = None
    BASE_URL: Address | None = None
    KEY_VARIABLE: KeyVariable = "OPENAI_API_KEY"
    CONCURRENCY: Annotated[int, Field(ge=1, le=1024)] = 16
    TIMEOUT: Annotated[float, Field(ge=0.001, le=86400)] = 300.0
    ATTEMPTS: PositiveInt = 6
    BACKOFF: Annotated[float, Field(ge=0, le=86400)] = 1.0
    GIVE_UP_AFTER: PositiveInt = 20
    PRICE_INPUT: NonNegativeFloat | None = None
    PRICE_OUTPUT: NonNegativeFloat | None = None
    MAX_COST: Annotated[float, Field(gt=0)] | None = None
    EXTRA_BODY: dict[str, Any] = field(default_factory=dict)
    IMAGE: ImageOptions = field(default_factory=ImageOptions)
