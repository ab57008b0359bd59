"""What is known of a benchmark before its files are read agrees with what reading them finds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from assets.tiny.world import write_world
from datasets.registration.preflight import missing_files, unknown_placeholders
from datasets.types import DataError
from pipeline.catalog import load_catalog
from tests.reading import load_records

BENCHMARKS = load_catalog().benchmarks


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "data"
    write_world(folder, seed=3, scenes=3, size=28)
    return folder


@pytest.mark.parametrize("name", BENCHMARKS)
def test_nothing_is_missing_of_a_whole_world_and_all_prompts_can_be_worded(name: str, world: Path) -> None:
    benchmark = BENCHMARKS[name]
    assert missing_files(benchmark, [world]) == []
    unknown, known = unknown_placeholders(benchmark)
    assert unknown == []
    records, _ = load_records(benchmark, [world])
    fields = {field for record in records for field in record.fields}
    assert fields <= set(known) or not known, "fields that a prompt may name are not listed"
    assert set(known) - fields <= {"ocr", "box", "class"}, "fields are listed that no record has"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_reading_would_miss_is_known_beforehand(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    with pytest.raises(DataError, match="not found; looked for"):
        load_records(benchmark, [tmp_path])
    missing = missing_files(benchmark, [tmp_path])
    assert missing
    assert all(str(tmp_path) in line for line in missing)


def test_every_missing_file_is_named(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "POPE", tmp_path / "POPE")
    (tmp_path / "POPE" / "coco_pope_popular.json").unlink()
    (tmp_path / "POPE" / "coco_pope_random.json").unlink()
    missing = missing_files(BENCHMARKS["pope_test"], [tmp_path])
    assert len(missing) == 2
    assert "coco_pope_random.json" in missing[0]
    assert "coco_pope_popular.json" in missing[1]


def test_placeholders_and_options_that_there_are_not() -> None:
    pope = BENCHMARKS["pope_test"]
    assert unknown_placeholders(replace(pope, prompt="{question} {options} {question}"))[0] == ["options"]
    own = replace(pope, reader="tables", data={"file": "x.jsonl"}, prompt="{anything}")
    assert unknown_placeholders(own) == ([], ())
    with pytest.raises(DataError, match="did you mean pope"):
        missing_files(replace(pope, reader="poppe"), [])
    with pytest.raises(DataError, match="unknown key 'file_name'"):
        missing_files(replace(own, data={"file_name": "x"}), [])
