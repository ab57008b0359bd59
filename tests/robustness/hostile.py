"""Checkpoints with something wrong in them, drawn from a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = (".safetensors", ".bin")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**31, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", ".", "..", "../..", "/etc/passwd", "\ud800", "\0", "None", "a" * 5000),
    *([], {}, [[1]], ["x"], {"x": 1}, [None], [10**30], {"0": {}}),
)
TEXTS = (
    b"",
    b"[]",
    b"null",
    b"{",
    b"7",
    b"NaN",
    b"\xff\xfe\x00",
    POINTER,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"<html>",
)


def mutate(folder: Path, rng: random.Random) -> tuple[str, bool]:
    """Do something to one file of a checkpoint.

    Args:
        folder: changed in place.
        rng: of the seed.
    Returns: what was done, for messages; and whether numbers in a safetensors file may have changed, which nothing
        could notice.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix in (".json", *WEIGHTS))
    texts = [file for file in files if file.suffix == ".json"]
    file = rng.choice(texts if rng.random() < 0.65 else files)
    change: Callable[[Path, random.Random], str]
    if rng.random() < 0.1:
        change = _replaced
    elif file.suffix in WEIGHTS:
        change = _bytes
    else:
        change = rng.choice((_value, _value, _value, _value, _missing, _text))
    said = change(file, rng)
    return f"{file.relative_to(folder)}: {said}", file.suffix == ".safetensors" and change is _bytes


def _value(file: Path, rng: random.Random) -> str:
    """Another value somewhere in a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    place, key = _anywhere(content, rng)
    value = rng.choice(VALUES)
    if place is None:
        content = value
    else:
        place[key] = value
    _write(file, content)
    return f"{key!r} is {str(value)[:40]!r}"


def _missing(file: Path, rng: random.Random) -> str:
    """A key less."""
    content = json.loads(file.read_text(encoding="utf-8"))
    place, key = _anywhere(content, rng)
    if place is None:
        return _text(file, rng)
    del place[key]
    _write(file, content)
    return f"{key!r} is missing"


def _anywhere(content: Any, rng: random.Random) -> tuple[Any, Any]:
    """A place in a JSON value: its container and key; (None, "all of it") for the value itself."""
    container: Any = None
    key: Any = "all of it"
    while isinstance(content, (dict, list)) and content and (container is None or rng.random() < 0.6):
        if container is None and rng.random() < 0.03:
            break
        container = content
        key = rng.choice(sorted(content)) if isinstance(content, dict) else rng.randrange(len(content))
        content = content[key]
    return container, key


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")


def _text(file: Path, rng: random.Random) -> str:
    """Something else altogether."""
    text = rng.choice(TEXTS)
    file.write_bytes(text)
    return f"{text[:20]!r}"


def _bytes(file: Path, rng: random.Random) -> str:
    """Other bytes, fewer or more of them."""
    content = bytearray(file.read_bytes())
    kind = rng.choice(("flipped", "flipped", "flipped in the head", "cut", "longer", "other"))
    if kind == "cut":
        content = content[: rng.randrange(len(content))]
    elif kind == "longer":
        content += rng.randbytes(rng.randrange(1, 100))
    elif kind == "other":
        return _text(file, rng)
    else:
        reach = min(len(content), 2000) if kind == "flipped in the head" else len(content)
        for _ in range(rng.choice((1, 1, 8))):
            content[rng.randrange(reach)] ^= rng.randrange(1, 256)
    file.write_bytes(content)
    return kind


def _replaced(file: Path, rng: random.Random) -> str:
    """No file in its place."""
    kind = rng.choice(("missing", "directory", "loop", "dangling", "pipe"))
    file.unlink()
    if kind == "directory":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file.name)
    elif kind == "dangling":
        file.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(file)
    return kind


def copied(source: Path, target: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(source, target)
    return target
