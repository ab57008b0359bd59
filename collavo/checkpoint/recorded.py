"""What a checkpoint records of how it was trained: its crayon settings, template and segmenter.

A model must be asked as it was taught: told of the objects in the same words or in none, on maps of the same fineness.
A training run notes these in its ``state.json``; a whole checkpoint of ours may have them in `FILE`. A released
checkpoint has neither, and `CrayonConfig`'s defaults are what it was trained with. Importing this loads no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from configs.common.field_types import Fraction

from .sizes import StrictJson

FILE = "collavo_settings.json"
_Side = Annotated[int, Field(ge=1, le=2**14)]


class CrayonRecord(StrictJson):
    """Crayon settings, see `collavo.options.CrayonConfig`. An early version listed them without their names."""

    model_config = ConfigDict(extra="forbid")

    OBJECT_LIST: bool
    MAP_SCALE: Annotated[int, Field(ge=1, le=256)]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, list) and len(values) == len(cls.model_fields):
            return dict(zip(cls.model_fields, values, strict=True))
        return values


class SegmenterRecord(StrictJson):
    """The settings of a segmenter that change its maps, see `modeling.segmenters.options.SegmenterConfig`."""

    model_config = ConfigDict(extra="forbid")

    NAME: Annotated[str, Field(min_length=1)]
    PATH: str = ""
    ZOO_CONFIG: str = ""
    IMAGES: str = ""
    THRESHOLD: Fraction | None = None
    MASK_THRESHOLD: Fraction | None = None
    CLASSES: list[str] = []
    STUFF: list[str] = []
    TOKENIZER: str = ""
    RESIZE: str = ""
    SHORT_SIDE: _Side | None = None
    LONG_SIDE: _Side | None = None


class SettingsRecord(StrictJson):
    """`FILE`: what a whole checkpoint records."""

    model_config = ConfigDict(extra="forbid")

    CRAYON: CrayonRecord
    TEMPLATE: Literal["chat", "demo"] = "chat"
    SEGMENTER: SegmenterRecord | None = None
