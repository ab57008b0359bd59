"""The identity of a run: everything that can change an answer or what a score means, and nothing else.

Batch size, number of processes, folders and logging are not part of it, so a run may continue on other machines. The
identity stands in ``run.json`` with its parts; a rerun whose parts differ stops, says what differs, and how to go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from configs.common.nested import flattened
from configs.common.safe_json import read_json
from configs.common.words import shown
from datasets.declaration import Benchmark
from datasets.types import ImageSource, Record

from ..runtime.errors import RunError
from ..runtime.files import make_folder, write_json

CODE_VERSION = 2
"""Raised when this code would answer the same question otherwise: another prompt, image preparation or search.

2: images are resized with a bilinear filter instead of a bicubic one.
"""

_BENCHMARK_PARTS = ("reader", "data", "prompt", "num_beams", "max_new_tokens", "scorer", "scoring", "version")


def run_parts(benchmark: Benchmark, records: Sequence[Record], engine: Mapping[str, Any]) -> dict[str, Any]:
    """What a run consists of.

    Args:
        benchmark: the declaration with the configuration's overrides.
        records: as read from the release files, before any limit.
        engine: identity of weights, compute type, template and segmenter, by name.
    """
    declared = {name: getattr(benchmark, name) for name in _BENCHMARK_PARTS}
    if benchmark.option_wording:
        declared["option_wording"] = benchmark.option_wording
    parts = {
        "benchmark": {"name": benchmark.name, **declared},
        "data": digest(records),
        "engine": engine,
        "code": CODE_VERSION,
    }
    return json.loads(_canonical(parts))  # type: ignore[no-any-return]


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Short name of a run's parts: 16 hexadecimal digits."""
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()[:16]


def digest(records: Iterable[Record]) -> str:
    """Identity of a benchmark's records: ids, image names, fields, targets, groups, and what scorers need."""
    total = hashlib.sha256()
    for record in records:
        values = (record.id, record.image, record.fields, record.target, record.group, record.meta)
        total.update(_canonical(values).encode() + b"\n")
    return total.hexdigest()[:16]


def _canonical(values: Any) -> str:
    return json.dumps(values, sort_keys=True, ensure_ascii=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, ImageSource):
        return {"image": value.name}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name what differs between two runs' parts, as ``engine.bits: 4 -> 8``."""
    before, after = _flat(old), _flat(new)
    absent = "nothing"
    return [
        f"{shown(name)}: {shown(before.get(name, absent))} -> {shown(after.get(name, absent))}"
        for name in sorted({*before, *after})
        if before.get(name, absent) != after.get(name, absent)
    ]


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, ensure_ascii=False) for name, value in flattened(values).items()}


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """A run's identity in its folder.

    Attributes:
        fingerprint: of the run that is about to start.
        accepted: marks of the answers that count, this run's own first; a mark is a fingerprint and the number of
            restarts before it, so that a restart never takes up what lies there from before.
        changes: what differs between them, where the user chose to continue; one line each.
        changed: whether the folder was last used with other parts.
    """

    fingerprint: str
    accepted: tuple[str, ...]
    changes: tuple[str, ...]
    changed: bool


def settle(file: Path, parts: Mapping[str, Any], on_change: str, about: Mapping[str, Any]) -> RunIdentity:
    """Compare with what the folder was started with, and write ``run.json``.

    Args:
        file: the folder's ``run.json``.
        parts: of the run that is about to start, see `run_parts`.
        on_change: what to do where they differ from the folder's: ``refuse``, ``restart`` or ``continue``.
        about: written next to them for the reader: commit, versions, time.

    Raises:
        RunError: the parts differ and ``on_change`` is ``refuse``, or ``run.json`` is unreadable.
    """
    name, restarts = fingerprint(parts), 0
    accepted: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    new: list[str] = []
    if file.exists():
        held = _read(file)
        new = differences(held["parts"], parts)
        if new and on_change == "refuse":
            raise _refusal(file, new)
        restarts = held["restarts"] + bool(new and on_change == "restart")
        if not new or on_change == "continue":
            accepted, changes = tuple(held["accepted"]), (*held["changes"], *new)
    accepted = tuple(dict.fromkeys((f"{name}.{restarts}", *accepted)))
    make_folder(file.parent)
    values = {"fingerprint": name, "restarts": restarts, "accepted": accepted, "changes": changes, "parts": parts}
    write_json(file, {**values, **about})
    return RunIdentity(fingerprint=name, accepted=accepted, changes=changes, changed=bool(new))


def check_settings(file: Path, benchmark: Benchmark, engine: Mapping[str, Any]) -> None:
    """Refuse over settings alone, before anything is loaded, what `settle` would refuse when all is loaded.

    Args:
        file: the folder's ``run.json``; it may be missing.
        benchmark: the declaration with the configuration's overrides.
        engine: those parts of the engine's identity that the configuration says.

    Raises:
        RunError: a setting differs from what the folder was started with, or ``run.json`` is unreadable.
    """
    if not file.exists():
        return
    held = _read(file)["parts"]
    theirs = held.get("engine")
    same = {name: theirs[name] for name in engine if name in theirs} if isinstance(theirs, Mapping) else {}
    old = {"benchmark": held.get("benchmark"), "code": held.get("code"), "engine": same}
    new = run_parts(benchmark, (), {name: engine[name] for name in same})
    del new["data"]
    if changed := differences(old, new):
        raise _refusal(file, changed)


def remarks_of(file: Path) -> dict[str, list[str]]:
    """What results must say of the run that gave the answers next to its ``run.json``.

    Args:
        file: the folder's ``run.json``; it may be missing, or another tool's, which says nothing here.
    Returns: ``changes`` between answers of several configurations, and settings that were ``forced`` on a checkpoint
        which was trained with others; a line each.
    """
    try:
        held = _read(file)
    except RunError:
        return {"changes": [], "forced": []}
    engine = held["parts"].get("engine")
    forced = engine.get("forced") if isinstance(engine, Mapping) else None
    return {
        name: [str(line) for line in lines] if isinstance(lines, list) else []
        for name, lines in (("changes", held["changes"]), ("forced", forced))
    }


def _refusal(file: Path, changes: Sequence[str]) -> RunError:
    listed = "\n  ".join(changes)
    return RunError(
        f"{file.parent} holds answers of another run. What differs:\n  {listed}\n"
        "Choose another SAVE_DIR, or EVAL.ON_CHANGE restart to answer everything anew, or EVAL.ON_CHANGE "
        "continue to keep the answers that are there."
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file)
        if isinstance(values["parts"], dict) and isinstance(values["accepted"], list):
            return {"changes": values["changes"], "restarts": int(values["restarts"]), **values}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RunError(f"{file} is not readable as the description of a run; move {file.parent} away or choose a SAVE_DIR")
