"""How a checkpoint is asked: as it was trained, unless it is forced.

Every command that answers, trains or shows calls `settings_for`. What the configuration leaves open is taken from the
checkpoint; what contradicts the checkpoint is an error that names both, or, with ``CRAYON.FORCE``, a note. Importing
this loads no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.common.words import quoted
from modeling.segmenters.options import SegmenterConfig

from ..errors import CheckpointError
from ..options import CrayonConfig
from ..template import CHAT, TEMPLATES, Template
from .finetuned_checkpoint import STATE, base_checkpoint, is_trained, read_state
from .names import read_json
from .recorded import FILE, CrayonRecord, SegmenterRecord, SettingsRecord
from .sizes import validated

_MAPS = ("THRESHOLD", "MASK_THRESHOLD", "CLASSES", "STUFF", "RESIZE", "SHORT_SIDE", "LONG_SIDE")
"""Settings of a segmenter that change the maps which it makes."""
_WHICH = ("NAME", "PATH", "ZOO_CONFIG", "IMAGES")
"""Settings that say which segmenter it is."""


@dataclass(frozen=True, kw_only=True)
class RecordedSettings:
    """What a checkpoint says of how it was trained; what is None it does not say.

    Attributes:
        object_list: see `CrayonConfig`.
        map_scale: see `CrayonConfig`.
        template: name of the conversation's wrapper.
        segmenter: by the keys of `SegmenterConfig`, paths as they count from here.
        file: that says so.
    """

    object_list: bool | None = None
    map_scale: int | None = None
    template: str | None = None
    segmenter: Mapping[str, Any] | None = None
    file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How a checkpoint is asked; nothing is left open.

    Attributes:
        crayon: what it is told of an image's objects.
        segmenter: makes the maps.
        template: the conversation's wrapper.
        notes: what a user should know: a segmenter that it was not trained with, what is forced; one line each.
        forced: what differs from its training, as ``CRAYON.MAP_SCALE 1 instead of 14``; part of a run's identity.
    """

    crayon: CrayonConfig
    segmenter: SegmenterConfig
    template: Template
    notes: tuple[str, ...]
    forced: tuple[str, ...]


def read_recorded(checkpoint: Path) -> RecordedSettings:
    """What a checkpoint says of how it was trained.

    Args:
        checkpoint: a whole one, or what a training run left.

    Raises:
        CheckpointError: what it says is unreadable or malformed.
    """
    if is_trained(checkpoint):
        state = read_state(checkpoint)
        if "CRAYON" not in state.settings:  # of an early version
            return read_recorded(base_checkpoint(checkpoint))
        values = {"CRAYON": state.settings["CRAYON"], "TEMPLATE": state.template, "SEGMENTER": state.segmenter}
        return _recorded(values, checkpoint / STATE)
    file = checkpoint / FILE
    return _recorded(read_json(file), file) if os.path.lexists(file) else RecordedSettings()


def _recorded(values: Mapping[str, Any], file: Path) -> RecordedSettings:
    said = validated(SettingsRecord, values, file)
    segmenter = None if said.SEGMENTER is None else _located(said.SEGMENTER, file.parent)
    return RecordedSettings(
        object_list=said.CRAYON.OBJECT_LIST,
        map_scale=said.CRAYON.MAP_SCALE,
        template=said.TEMPLATE,
        segmenter=segmenter,
        file=file,
    )


def _located(segmenter: SegmenterRecord, folder: Path) -> dict[str, Any]:
    """A segmenter's settings; paths that begin with a dot count from the folder of the file that names them."""
    values = segmenter.model_dump(exclude_defaults=True)
    for key in ("PATH", "IMAGES", "TOKENIZER"):
        if str(values.get(key, "")).startswith("."):
            values[key] = os.path.normpath(folder / values[key])
    return values


def write_recorded(folder: Path, settings: ModelSettings) -> None:
    """Write `FILE` into a whole checkpoint.

    Args:
        folder: of the checkpoint.
        settings: how it was trained.
    """
    content = SettingsRecord(
        CRAYON=CrayonRecord(OBJECT_LIST=settings.crayon.object_list, MAP_SCALE=settings.crayon.map_scale),
        TEMPLATE=settings.template.name,  # type: ignore[arg-type]  # checked by the class
        SEGMENTER=segmenter_record(settings.segmenter),
    )
    values = content.model_dump(exclude_defaults=True)
    (folder / FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def segmenter_record(segmenter: SegmenterConfig) -> SegmenterRecord | None:
    """What a checkpoint records of a segmenter: what changes its maps, with local paths made absolute.

    Maps that lie on disk belong to the images of a training run; there are none for others, so that they are not
    recorded.
    """
    config = segmenter.resolved()
    if config.NAME == "precomputed":
        return None
    values = {key: _plain(getattr(config, key)) for key in SegmenterRecord.model_fields}
    for key, name in (("ZOO_CONFIG", "detectron2"), ("RESIZE", "xdecoder")):
        values[key] = values[key] if name == config.NAME else ""
    for key in ("PATH", "TOKENIZER"):
        if values[key] and os.path.exists(values[key]):
            values[key] = os.path.abspath(values[key])
    return SegmenterRecord(**values)


def settings_for(
    checkpoint: Path,
    crayon: CrayonConfig | None = None,
    segmenter: SegmenterConfig | None = None,
    template: Template | None = None,
) -> ModelSettings:
    """How a checkpoint is to be asked: what is asked for, and for the rest as it was trained.

    A segmenter that it was not trained with is no contradiction, since maps are data: it is noted. The same one with
    other thresholds, classes or sizes is one.

    Args:
        checkpoint: a whole one, or what a training run left.
        crayon: what is asked for.
        segmenter: what is asked for.
        template: what is asked for.

    Raises:
        CheckpointError: the checkpoint is unreadable, or what is asked for contradicts it and is not forced.
    """
    crayon, segmenter = crayon or CrayonConfig(), segmenter or SegmenterConfig()
    recorded = read_recorded(checkpoint)
    other = _is_other(segmenter, recorded.segmenter)
    asked: list[tuple[str, Any, Any]] = [
        ("CRAYON.OBJECT_LIST", crayon.OBJECT_LIST, recorded.object_list),
        ("CRAYON.MAP_SCALE", crayon.MAP_SCALE, recorded.map_scale),
        ("the template", template and template.name, recorded.template),
    ]
    if recorded.segmenter is not None and not other:
        asked += [(f"SEGMENTER.{key}", _plain(getattr(segmenter, key)), recorded.segmenter.get(key)) for key in _MAPS]
    forced = [(key, ours, theirs) for key, ours, theirs in asked if _set(ours) and _set(theirs) and ours != theirs]
    if forced and not crayon.FORCE:
        raise CheckpointError(_contradiction(forced, recorded.file))
    filled = CrayonConfig(
        OBJECT_LIST=_first(crayon.OBJECT_LIST, recorded.object_list, crayon.object_list),
        MAP_SCALE=_first(crayon.MAP_SCALE, recorded.map_scale, crayon.map_scale),
        FORCE=crayon.FORCE,
    )
    words = tuple(f"{key} {_text(ours)} instead of {_text(theirs)}" for key, ours, theirs in forced)
    return ModelSettings(
        crayon=filled,
        segmenter=_filled(segmenter, None if other else recorded.segmenter).resolved(),
        template=template or TEMPLATES[recorded.template or CHAT.name],
        notes=tuple(_notes(crayon, segmenter, recorded, words, other=other)),
        forced=words,
    )


def _is_other(segmenter: SegmenterConfig, recorded: Mapping[str, Any] | None) -> bool:
    """Whether a configuration names another segmenter than a checkpoint was trained with."""
    if recorded is None:
        return False
    for key in _WHICH:
        ours, theirs = getattr(segmenter, key), recorded.get(key, "")
        if ours and ours != theirs and (not theirs or os.path.realpath(ours) != os.path.realpath(theirs)):
            return True
    return False


def _filled(segmenter: SegmenterConfig, recorded: Mapping[str, Any] | None) -> SegmenterConfig:
    """A configuration with what a checkpoint says in the place of what is left open."""
    open_keys = {key: value for key, value in (recorded or {}).items() if not _set(getattr(segmenter, key))}
    return replace(segmenter, **open_keys)


def _notes(
    crayon: CrayonConfig,
    segmenter: SegmenterConfig,
    recorded: RecordedSettings,
    forced: tuple[str, ...],
    *,
    other: bool,
) -> Iterator[str]:
    """What a user should know, see `ModelSettings`."""
    for words in forced:
        yield f"CRAYON.FORCE: the model is asked with {words}, with which it was trained ({recorded.file})"
    if other and recorded.segmenter is not None:
        trained = " ".join(str(recorded.segmenter[key]) for key in ("NAME", "PATH") if key in recorded.segmenter)
        mine = segmenter.resolved()
        yield f"maps come from {mine.NAME} {mine.PATH}".rstrip() + f"; the model was trained with {trained}"
    if recorded.file is None:
        released = CrayonConfig()
        for key, ours, theirs in (
            ("OBJECT_LIST", crayon.OBJECT_LIST, released.object_list),
            ("MAP_SCALE", crayon.MAP_SCALE, released.map_scale),
        ):
            if ours is not None and ours != theirs:
                yield (
                    f"CRAYON.{key} is {_text(ours)}; the checkpoint does not say with what it was trained, the "
                    f"released one was with {_text(theirs)}"
                )


def _contradiction(forced: list[tuple[str, Any, Any]], file: Path | None) -> str:
    listed = "\n  ".join(
        f"{key}: {_text(ours)} is asked for, {_text(theirs)} is what it was trained with"
        for key, ours, theirs in forced
    )
    return (
        f"the configuration contradicts the checkpoint ({file}):\n  {listed}\n"
        "Leave it out, so that the checkpoint's own value is taken; or set CRAYON.FORCE True to ask it so all the same."
    )


def _first(*values: Any) -> Any:
    """The first that is not None."""
    return next(value for value in values if value is not None)


def _set(value: Any) -> bool:
    """Whether a setting is given; False is, what is empty is not."""
    return value is not None and value != "" and value != []


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else quoted(value)
