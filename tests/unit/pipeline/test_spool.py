"""What a process of a machine has read reaches the others whole, or not at all."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.tiny.world import write_world
from datasets.types import DataError
from pipeline.base import BenchmarkPipeline
from pipeline.catalog import load_catalog
from pipeline.run.spool import spooled, unspool


def test_a_value_is_the_same_and_its_file_goes() -> None:
    value = {"a": [1, (2, "\ud800")], "b": {3.5}}
    with spooled(value) as spool:
        assert spool is not None and unspool(spool) == value
        assert spool.path.parent.stat().st_mode & 0o077 == 0, "nobody else can read or replace it"
    assert not spool.path.parent.exists() and unspool(spool) is None


class Dangerous:
    """Would do something while it is unpacked."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("unpacked",)


def test_what_another_has_written_is_not_unpacked() -> None:
    with spooled("ours") as spool:
        assert spool is not None
        spool.path.write_bytes(pickle.dumps(Dangerous()))
        assert unspool(spool) is None
        spool.path.write_bytes(b"")
        assert unspool(spool) is None
        assert unspool(replace(spool, path=Path("/nowhere/at/all"))) is None


def test_what_cannot_be_written_is_read_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    with spooled(lambda: 1) as spool:
        assert spool is None
    monkeypatch.setattr(Path, "write_bytes", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left")))
    with spooled("ours") as spool:
        assert spool is None


def test_records_of_every_benchmark_can_be_shared(tmp_path: Path) -> None:
    write_world(tmp_path, seed=0, scenes=4, size=112)
    shared = 0
    for benchmark in load_catalog().benchmarks.values():
        try:
            read = BenchmarkPipeline(benchmark).load([tmp_path])
        except DataError:
            continue  # the tiny world has no version of it
        with spooled(read) as spool:
            assert spool is not None, benchmark.dataset
            records, bad = unspool(spool)
        assert (records, bad) == read
        images = [(one.image, other.image) for one, other in zip(records, read[0], strict=True) if one.image]
        assert all(ours.read() == theirs.read() for ours, theirs in images[:3] if theirs is not None)
        shared += 1
    assert shared > 15
