"""Panoptic maps on disk: what one run has segmented, no other run, process or training segments again.

A map belongs to pixels, segmenter and size: its file is named by a digest of these three, of the libraries' versions
and of the kind of device, which can move the last digit of a score. Names of images do not count. Any number of
processes may share a folder: a file appears whole, under its final name, and holds a checksum; one that is corrupt all
the same is made again. Whatever is wrong with the folder, a run goes on without it and says so once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from datasets.writing import OLD, PARTIAL, make_folder, write_bytes
from modeling.image import DecodedImage
from modeling.segmenters import build_segmenter
from modeling.segmenters.base import PanopticMap, Segment, Segmenter
from modeling.segmenters.coco import Category
from modeling.segmenters.options import SegmenterConfig

from ..runtime.console import warn

OFF = ("off", "no", "none", "false")
"""Values of ``SEGMENTER.CACHE`` that switch it off, in any case."""
NOT_KEPT = ("none", "precomputed")
"""Segmenters whose maps are files already, or nothing."""
_MAGIC = b"collavo map 1\n"
_PACKAGES = ("torch", "transformers", "pillow", "numpy")
_SUFFIX = ".map"
_NAME = re.compile(r"[0-9a-f]{64}\.map|\.[0-9a-f]{64}\.map\..*" + re.escape(PARTIAL))
_FOLDER = re.compile(r"[0-9a-f]{2}")
_MOST_HEADER = 2**20
_KEPT_SHARE, _LOOKS = 0.9, 64
_NAMED = 3
"""Corrupt files that a process names; the rest are only made again."""


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Where maps are kept by default: ``collavo/maps`` of the user's cache folder; None where no home is known.

    Source: XDG Base Directory Specification, which has relative paths ignored.

    Args:
        environ: the process environment; ``XDG_CACHE_HOME`` counts.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "collavo" / "maps"
    try:
        return Path.home() / ".cache" / "collavo" / "maps"
    except RuntimeError:
        return None


def keeps_maps(config: SegmenterConfig) -> bool:
    """Whether the maps of a configured segmenter are kept on disk."""
    return config.resolved().NAME not in NOT_KEPT and config.CACHE.strip().lower() not in OFF


def configured_cache(config: SegmenterConfig, environ: Mapping[str, str]) -> PanopticMapCache | None:
    """The cache that ``SEGMENTER.CACHE`` and ``CACHE_SIZE`` describe; None where maps are not kept."""
    if not keeps_maps(config):
        return None
    folder = Path(config.CACHE).expanduser() if config.CACHE.strip() else cache_folder(environ)
    return None if folder is None else PanopticMapCache(folder, round(config.CACHE_SIZE * 1e9))


def cached_segmenter(config: SegmenterConfig, device: Any = "cpu") -> Segmenter:
    """Build the segmenter that a configuration names, with the cache that it names.

    Args:
        config: see `SegmenterConfig`.
        device: where it runs.

    Raises:
        SegmenterError: see `modeling.segmenters.build_segmenter`.
    """
    segmenter = build_segmenter(config, device)
    if config.resolved().NAME in NOT_KEPT:
        return segmenter
    return CachedSegmenter(segmenter, configured_cache(config, os.environ), device)


class PanopticMapCache:
    """A folder of maps, bounded in size, that any number of processes and threads share.

    Args:
        folder: made when the first map is kept.
        limit: bytes on disk above which the least recently used maps are evicted.

    Attributes:
        evicted: maps that this object has removed to stay below the limit.
        writable: False once a map could not be kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.evicted, self.writable = 0, True
        self._readable, self._num_corrupt = True, 0
        self._chance = random.Random()  # noqa: S311 - decides only when to look at the folder
        self._lock = threading.Lock()

    def get(self, key: str, size: tuple[int, int]) -> PanopticMap | None:
        """A kept map, which counts as used now; None where there is none, or a corrupt one.

        Args:
            key: SHA-256 in hexadecimal.
            size: height and width of the map.
        """
        file = self._file(key)
        most = len(_MAGIC) + 32 + 2 * _most_bytes(size)  # more is no map of this size
        try:
            with file.open("rb") as stream:
                content = stream.read(most + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._cannot_read(error)
            return None
        try:
            panoptic = unpacked(content, key, size)
        except ValueError as error:
            self._is_corrupt(file, error)
            return None
        with suppress(OSError):  # another process may have removed it, or this one may only read
            os.utime(file)
        return panoptic

    def put(self, key: str, panoptic: PanopticMap) -> None:
        """Keep a map; where the folder cannot be written to, that is said once, and no more is tried.

        Args:
            key: SHA-256 in hexadecimal.
            panoptic: what belongs to it.
        """
        if not self.writable:
            return
        file, content = self._file(key), packed(panoptic, key)
        try:
            make_folder(file.parent)
            write_bytes(file, content, sync=False)
            self._bound(_on_disk(file.stat()))
        except FileNotFoundError:
            return  # another process has removed the file or its folder meanwhile
        except OSError as error:
            with self._lock:
                first, self.writable = self.writable, False
            if first:
                warn(f"maps are not kept: {error} SEGMENTER.CACHE names another folder, or is off")

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _cannot_read(self, error: OSError) -> None:
        with self._lock:
            first, self._readable = self._readable, False
        if first:
            warn(f"kept maps cannot be read and are made again: {error.filename}: {error.strerror}")

    def _is_corrupt(self, file: Path, error: ValueError) -> None:
        with self._lock:
            self._num_corrupt += 1
            number = self._num_corrupt
        if number <= _NAMED:
            more = "; further ones are not named" if number == _NAMED else ""
            warn(f"{file}: a corrupt map ({error}); it is made again{more}")

    def _bound(self, added: int) -> None:
        """Look at the folder about once for every 64th part of the limit that all processes together have added."""
        with self._lock:
            if self._chance.random() * self.limit < added * _LOOKS:
                self.prune()

    def prune(self) -> None:
        """Remove what killed processes left, and the maps that were not used for longest, where there are too many."""
        files, now = [], time.time()
        for entry in _entries(self.folder):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if not entry.name.endswith(PARTIAL):
                files.append((status.st_mtime_ns, entry.path, _on_disk(status)))
            elif now - status.st_mtime > OLD:
                _remove(entry.path)
        total = sum(size for *_, size in files)
        if total <= self.limit * (1 - 1 / _LOOKS):
            return
        for _, path, size in sorted(files):
            if total <= self.limit * _KEPT_SHARE:
                break
            self.evicted += _remove(path)
            total -= size


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Our files below a folder; whatever else somebody keeps there is none of them."""
    with suppress(OSError), os.scandir(folder) as parts:
        for part in parts:
            if _FOLDER.fullmatch(part.name):
                with suppress(OSError), os.scandir(part.path) as files:
                    yield from (entry for entry in files if _NAME.fullmatch(entry.name))


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False  # another process was faster, or may do what this one may not
    return True


def _on_disk(status: os.stat_result) -> int:
    """Bytes that a file takes: whole blocks, which are several times as much for a small one."""
    return max(status.st_size, 512 * getattr(status, "st_blocks", 0))


def _most_bytes(size: tuple[int, int]) -> int:
    return 4 * size[0] * size[1] + _MOST_HEADER


def packed(panoptic: PanopticMap, key: str) -> bytes:
    """A map as bytes: a mark, a checksum of key and body, and the body: segments in JSON, ids as int32, compressed."""
    segments = [(s.id, s.category_id, s.score) for s in panoptic.segments]
    header = json.dumps({"size": panoptic.id_map.shape, "segments": segments}).encode()
    body = zlib.compress(header + b"\n" + panoptic.id_map.astype("<i4").tobytes())
    return _MAGIC + _checksum(key, body) + body


def unpacked(content: bytes, key: str, size: tuple[int, int]) -> PanopticMap:
    """The map that bytes hold.

    Args:
        content: of a file.
        key: that it should belong to.
        size: that the map should have.

    Raises:
        ValueError: they are not those of `packed` for this key; what is wrong with them.
    """
    start = len(_MAGIC)
    body = content[start + 32 :]
    if content[:start] != _MAGIC:
        raise ValueError("it does not begin as one")
    if content[start : start + 32] != _checksum(key, body):
        raise ValueError("its checksum is wrong")
    try:
        header, _, ids = zlib.decompressobj().decompress(body, _most_bytes(size)).partition(b"\n")
        segments = json.loads(header)["segments"]
        id_map = np.frombuffer(ids, "<i4").astype(np.int32).reshape(size)
        return PanopticMap(id_map, tuple(Segment(id=i, category_id=c, score=s) for i, c, s in segments))
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it holds another one: {error}") from error


def _checksum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).digest()


class CachedSegmenter:
    """A segmenter whose maps are kept; see `Segmenter`. Several threads may use it.

    Args:
        segmenter: makes what is not there yet.
        cache: None to keep nothing.
        device: where the segmenter runs.

    Attributes:
        made: maps that the segmenter was asked for.
        found: images whose map was there: in the cache, or for equal pixels of the same call.
    """

    def __init__(self, segmenter: Segmenter, cache: PanopticMapCache | None, device: Any = "cpu") -> None:
        self.segmenter, self.cache = segmenter, cache
        self.made = self.found = 0
        self._identity = json.dumps([segmenter.fingerprint, _versions(), str(device).split(":")[0]]).encode()
        self._lock = threading.Lock()  # one network, and perhaps several threads that prepare samples

    @property
    def fingerprint(self) -> str:
        """See `Segmenter.fingerprint`; where a map comes from does not change it."""
        return self.segmenter.fingerprint

    @property
    def categories(self) -> Mapping[int, Category]:
        """What the numbers in `Segment.category_id` stand for."""
        return self.segmenter.categories

    @property
    def reads_maps(self) -> bool:
        """Whether maps are read from disk by name, rather than made."""
        return self.segmenter.reads_maps

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`; equal pixels are segmented once.

        Raises:
            SegmenterError: see the segmenter.
        """
        keys = [self.key(image, size) for image in images]
        maps: dict[str, PanopticMap] = {}
        missing: dict[str, DecodedImage] = {}
        for key, image in dict(zip(keys, images, strict=True)).items():
            kept = None if self.cache is None else self.cache.get(key, size)
            if kept is None:
                missing[key] = image
            else:
                maps[key] = kept
        if missing:
            with self._lock:
                made = self.segmenter.segment(list(missing.values()), size)
            for key, panoptic in zip(missing, made, strict=True):
                maps[key] = panoptic
                if self.cache is not None:
                    self.cache.put(key, panoptic)
        with self._lock:
            self.made, self.found = self.made + len(missing), self.found + len(images) - len(missing)
        return [maps[key] for key in keys]

    def key(self, image: DecodedImage, size: tuple[int, int]) -> str:
        """What a map of a size is known by, in hexadecimal."""
        return hashlib.sha256(self._identity + f" {size[0]} {size[1]} ".encode() + image.key).hexdigest()


def _versions() -> list[str]:
    """Of the libraries that prepare images and compute maps."""
    found = []
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found
