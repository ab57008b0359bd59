"""Panoptic maps on disk: found by pixels alone, bit-equal, bounded, safe against kills, damage and other processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.writing import OLD, PARTIAL
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import COCO_BY_INDEX, COCO_PANOPTIC, Category
from modeling.segmenters.options import SegmenterConfig
from pipeline.models.map_cache import (
    CachedSegmenter,
    PanopticMapCache,
    cache_folder,
    cached_segmenter,
    configured_cache,
    keeps_maps,
    packed,
    unpacked,
)
from tests.limits import LIMIT, examples

ROOT = Path(__file__).resolve().parents[3]
SIZE = (5, 7)
KEY = "ab" * 32


class Counting:
    """A segmenter whose maps follow from the pixels alone; notes what it was asked for."""

    categories: Mapping[int, Category] = COCO_BY_INDEX
    reads_maps = False

    def __init__(self, fingerprint: str = "counting-1", delay: float = 0.0) -> None:
        self.fingerprint, self.delay, self.seen = fingerprint, delay, list[str]()

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        self.seen += [image.name for image in images]
        time.sleep(self.delay)
        return [expected(image, size) for image in images]


def expected(image: DecodedImage, size: tuple[int, int]) -> PanopticMap:
    rng = np.random.default_rng(int(image.pixels.sum()))
    segments = tuple(Segment(id=i, category_id=int(rng.integers(133)), score=float(rng.random())) for i in (1, 2))
    return PanopticMap(rng.integers(0, 3, size).astype(np.int32), segments)


def images(count: int, prefix: str = "") -> list[DecodedImage]:
    return [DecodedImage(np.full((4, 6, 3), number, np.uint8), f"{prefix}{number}.png") for number in range(count)]


def same(ours: PanopticMap, theirs: PanopticMap) -> bool:
    return np.array_equal(ours.id_map, theirs.id_map) and ours.segments == theirs.segments


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.map"))


maps = st.builds(
    lambda height, width, seed, scores: PanopticMap(
        np.random.default_rng(seed).integers(-(2**31), 2**31, (height, width)).astype(np.int32),
        tuple(Segment(id=i, category_id=i, score=score) for i, score in enumerate(scores)),
    ),
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.lists(st.floats(0, 1), max_size=4),
)  # fmt: skip


@given(maps)
def test_what_is_kept_comes_back_to_the_last_bit(panoptic: PanopticMap) -> None:
    back = unpacked(packed(panoptic, KEY), KEY, panoptic.id_map.shape)
    assert same(back, panoptic) and back.id_map.dtype == np.int32


@given(maps, st.data())
def test_no_changed_bytes_pass_for_a_map(panoptic: PanopticMap, data: st.DataObject) -> None:
    whole = packed(panoptic, KEY)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(changed), whole[:place], whole + b"\0"):
        with pytest.raises(ValueError, match="begin|checksum"):
            unpacked(damaged, KEY, panoptic.id_map.shape)
    with pytest.raises(ValueError, match="checksum"):
        unpacked(whole, "cd" * 32, panoptic.id_map.shape)  # of another image
    height, width = panoptic.id_map.shape
    with pytest.raises(ValueError, match="another"):
        unpacked(whole, KEY, (height + 1, width))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_quietly(content: bytes) -> None:
    with pytest.raises(ValueError, match="begin|checksum"):
        unpacked(content, KEY, SIZE)


def test_a_second_run_on_the_same_pixels_segments_nothing(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    made = CachedSegmenter(first, PanopticMapCache(tmp_path, 10**9)).segment(images(6), SIZE)
    later = CachedSegmenter(second, PanopticMapCache(tmp_path, 10**9))
    found = later.segment(images(6, "other/"), SIZE)
    assert (len(first.seen), second.seen) == (6, []) and (later.made, later.found) == (0, 6)
    assert all(map(same, made, found))
    assert all(same(panoptic, expected(image, SIZE)) for panoptic, image in zip(found, images(6), strict=True))


def test_pixels_size_segmenter_and_device_tell_maps_apart(tmp_path: Path) -> None:
    counting, cache, image = Counting(), PanopticMapCache(tmp_path, 10**9), images(1)[0]
    ways = [
        (Counting("counting-1"), image, SIZE, "cpu"),
        (Counting("counting-2"), image, SIZE, "cpu"),
        (Counting("counting-1"), image, (7, 5), "cpu"),
        (Counting("counting-1"), image, SIZE, "cuda:0"),
        (Counting("counting-1"), DecodedImage(image.pixels + 1, image.name), SIZE, "cpu"),
        (Counting("counting-1"), DecodedImage(image.pixels.reshape(6, 4, 3), image.name), SIZE, "cpu"),
    ]
    for segmenter, another, size, device in ways:
        CachedSegmenter(segmenter, cache, device).segment([another], size)
        assert segmenter.seen == [another.name]
    assert len(files(tmp_path)) == len(ways)
    CachedSegmenter(counting, cache, "cuda:1").segment([image], SIZE)
    assert counting.seen == []


def test_equal_pixels_of_one_call_are_segmented_once(tmp_path: Path) -> None:
    counting = Counting()
    pair = [images(1)[0], replace(images(1)[0], name="again.png")]
    found = CachedSegmenter(counting, PanopticMapCache(tmp_path, 10**9)).segment([*pair, *images(2)], SIZE)
    assert counting.seen in (["0.png", "1.png"], ["again.png", "1.png"])
    assert same(found[0], found[1]) and same(found[0], found[2]) and not same(found[0], found[3])


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b[:-1] + b"?", lambda b: b"no map"])
def test_a_corrupt_file_is_said_and_made_again(
    damage: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = Counting()
    cached = CachedSegmenter(segmenter, PanopticMapCache(tmp_path, 10**9))
    cached.segment(images(1), SIZE)
    (file,) = files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert same(cached.segment(images(1), SIZE)[0], expected(images(1)[0], SIZE))
    assert f"{file}: a corrupt map (" in capsys.readouterr().err
    cached.segment(images(1), SIZE)
    assert len(segmenter.seen) == 2, "it is mended"


def test_many_corrupt_files_are_not_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached = CachedSegmenter(Counting(), PanopticMapCache(tmp_path, 10**9))
    cached.segment(images(9), SIZE)
    for file in files(tmp_path):
        file.write_bytes(b"")
    cached.segment(images(9), SIZE)
    assert capsys.readouterr().err.count("a corrupt map") == 3


def test_a_folder_that_cannot_be_written_to_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        segmenter = Counting()
        cached = CachedSegmenter(segmenter, PanopticMapCache(place, 10**9))
        for _ in range(2):
            assert same(cached.segment(images(3), SIZE)[2], expected(images(3)[2], SIZE))
        assert capsys.readouterr().err.count("maps are not kept") == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.writing.os.replace", full)
    cached = CachedSegmenter(Counting(), PanopticMapCache(tmp_path, 10**9))
    assert len(cached.segment(images(3), SIZE)) == 3
    assert "No space left on device. Free some space there" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half is left"


def on_disk(folder: Path) -> int:
    return sum(max(file.stat().st_size, 512 * file.stat().st_blocks) for file in files(folder))


def test_least_recently_used_are_evicted_first(tmp_path: Path) -> None:
    probe = CachedSegmenter(Counting(), PanopticMapCache(tmp_path / "probe", 10**9))
    probe.segment(images(1), SIZE)
    limit = 10 * on_disk(tmp_path / "probe")
    folder = tmp_path / "cache"
    cached = CachedSegmenter(Counting(), PanopticMapCache(folder, limit))
    cached.segment(images(8), SIZE)
    for age, image in enumerate(reversed(images(8))):  # image 0 is the oldest
        os.utime(folder / cached.key(image, SIZE)[:2] / f"{cached.key(image, SIZE)}.map", (1e9 - age, 1e9 - age))
    cached.segment(images(2), SIZE)  # now 2 is the oldest
    (folder / "ab").mkdir(exist_ok=True)
    others = [folder / "ab" / "notes.txt", folder / "mine.map", folder / ("f" * 64 + ".map")]
    for other in others:
        other.write_bytes(b"x" * limit)
    cached.segment([DecodedImage(np.full((4, 6, 3), 100 + n, np.uint8), "new") for n in range(4)], SIZE)
    there = {file.name for file in files(folder)}
    kept = [number for number, image in enumerate(images(8)) if f"{cached.key(image, SIZE)}.map" in there]
    assert {0, 1} <= set(kept) and kept[2:] == list(range(8 - len(kept) + 2, 8)), kept
    assert all(other.exists() for other in others), "other people's files stay"
    assert cached.cache is not None and cached.cache.evicted == 8 - len(kept) > 0


@pytest.mark.slow
@settings(max_examples=examples(10))
@given(st.integers(3, 40), st.integers(0, 10**6))
def test_the_bound_holds_whatever_is_kept(count: int, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        limit = rng.randint(4, 20) * 4096 + rng.randint(0, 4095)
        cached = CachedSegmenter(Counting(), PanopticMapCache(Path(folder), limit))
        for number in range(count):
            image = DecodedImage(np.full((1, 2, 3), number, np.uint8), "x")
            cached.segment([image], (rng.randint(1, 60), rng.randint(1, 60)))
            assert on_disk(Path(folder)) <= limit


def test_what_killed_processes_left_goes_when_it_is_old(tmp_path: Path) -> None:
    cache = PanopticMapCache(tmp_path, 10**9)
    cache.put(KEY, expected(images(1)[0], SIZE))
    young, old = (tmp_path / "ab" / f".{KEY}.map.host-{n}-1{PARTIAL}" for n in (1, 2))
    for partial, age in ((young, 0.0), (old, 2 * OLD)):
        partial.write_bytes(b"half")
        os.utime(partial, (time.time() - age,) * 2)
    cache.prune()
    assert young.exists() and not old.exists() and cache.get(KEY, SIZE) is not None


def test_threads_share_it(tmp_path: Path) -> None:
    cached = CachedSegmenter(Counting(), PanopticMapCache(tmp_path, 10**9))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: cached.segment([images(20)[n % 20]], SIZE)[0], range(80)))
    assert all(same(panoptic, expected(images(20)[n % 20], SIZE)) for n, panoptic in enumerate(found))
    assert cached.made + cached.found == 80


def test_the_folder_follows_the_environment_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "collavo" / "maps"
    home = Path.home() / ".cache" / "collavo" / "maps"
    assert cache_folder({}) == cache_folder({"XDG_CACHE_HOME": ""}) == cache_folder({"XDG_CACHE_HOME": "rel"}) == home
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    for off in ("off", "OFF", "none", "False", "no"):
        assert configured_cache(SegmenterConfig(CACHE=off), environ) is None
        assert not keeps_maps(SegmenterConfig(CACHE=off))
    moved = configured_cache(SegmenterConfig(CACHE=str(tmp_path / "x"), CACHE_SIZE=0.5), environ)
    assert moved is not None and (moved.folder, moved.limit) == (tmp_path / "x", 5 * 10**8)
    default = configured_cache(SegmenterConfig(), environ)
    assert default is not None and default.folder == tmp_path / "collavo" / "maps"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder({}) is None and configured_cache(SegmenterConfig(), {}) is None


def test_tests_never_write_into_the_users_cache() -> None:
    folder = cache_folder(os.environ)
    assert folder is not None and not folder.is_relative_to(Path.home() / ".cache")
    script = "import os; from pipeline.models.map_cache import cache_folder; print(cache_folder(os.environ))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder)


def test_maps_that_are_files_or_nothing_are_not_kept(tmp_path: Path) -> None:
    segmenter = cached_segmenter(SegmenterConfig(NAME="none", CACHE=str(tmp_path)))
    segmenter.segment(images(2), SIZE)
    assert not list(tmp_path.iterdir())
    assert not keeps_maps(SegmenterConfig(NAME="precomputed", PATH="x.json"))


def test_switched_off_it_only_segments(tmp_path: Path) -> None:
    counting = Counting()
    cached = CachedSegmenter(counting, None)
    for _ in range(2):
        assert same(cached.segment(images(1), SIZE)[0], expected(images(1)[0], SIZE))
    assert len(counting.seen) == 2


def test_an_open_vocabulary_keeps_its_classes() -> None:
    counting = Counting()
    assert CachedSegmenter(counting, None).categories[0] == COCO_PANOPTIC[0]
    own = {0: Category(id=900, name="unicorn", is_thing=True)}
    counting.categories = own
    assert CachedSegmenter(counting, None).categories == own
    assert CachedSegmenter(counting, None).fingerprint == counting.fingerprint


def worker(folder: Path, count: int) -> None:
    """For the test below: segment images in an order of one's own; prints how many were not there."""
    cached = CachedSegmenter(Counting(delay=0.002), PanopticMapCache(folder, 10**9))
    order = images(count)
    random.Random(os.getpid()).shuffle(order)
    for image in order:
        assert same(cached.segment([image], SIZE)[0], expected(image, SIZE))
    sys.stdout.write(f"{cached.made}\n")


@pytest.mark.slow
def test_three_processes_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    count, rng = 120, random.Random(0)
    script = (
        "import sys; from pathlib import Path; from tests.unit.pipeline.test_map_cache import worker; "
        f"worker(Path(sys.argv[1]), {count})"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    running = [start() for _ in range(3)]
    for process in running:
        until = time.monotonic() + LIMIT
        while len(files(tmp_path)) < rng.randint(5, 30) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept = {file: file.read_bytes() for file in files(tmp_path)}
    for file, content in kept.items():
        unpacked(content, file.stem, SIZE)  # whole, every one
    out, err = start().communicate(timeout=LIMIT)
    assert int(out) == count - len(kept) and not err
    assert len(files(tmp_path)) == count and all(file.read_bytes() == content for file, content in kept.items())
