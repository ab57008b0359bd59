"""``validate`` names everything that is missing or damaged at once, each folder once, and where it can be had."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from assets.tiny.world import write_world
from datasets.registration.preflight import missing_places
from datasets.roots import data_roots, find
from datasets.types import DataError
from pipeline.catalog import load_catalog
from pipeline.commands.cli import main

CATALOG = load_catalog()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "world"
    write_world(folder, seed=1, scenes=30, size=112)
    return folder


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "data")
    return tmp_path / "data"


def validate(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[int, str]:
    code = main(["validate", *words, "--overrides", "DATASETS.ROOT", str(root)])
    return code, capsys.readouterr().out


def test_a_whole_world_is_complete(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = validate(capsys, world, "all", "coco_panoptic_val")
    assert code == 0, out
    asked = len([name for name in CATALOG.benchmarks if "tiny" not in name])
    assert f"{asked} of {asked} benchmarks are complete" in out and "where to get" not in out


@pytest.mark.parametrize("name", sorted(CATALOG.benchmarks))
def test_nothing_at_all_names_every_file_and_where_to_get_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = validate(capsys, tmp_path, name)
    benchmark = CATALOG.benchmarks[name]
    assert code == 1 and "Traceback" not in out
    places = missing_places(benchmark, [tmp_path])
    assert places and all(str(place) in out for group in places for place in group)
    assert benchmark.download and all(page in out for page in benchmark.download)
    assert all(re.search(r"https?://\S+", page) for page in benchmark.download)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("scienceqa_test", ["ScienceQA/problems.json", "ScienceQA/pid_splits.json", "ScienceQA/images"]),
        ("textvqa_val", ["TextVQA/TextVQA_0.5.1_val.json", "TextVQA/TextVQA_Rosetta_OCR_v0.2_val.json"]),
        ("pope_test", ["POPE/coco_pope_random.json", "POPE/coco_pope_adversarial.json", "coco2014/val2014"]),
        ("refcoco", ["RefCOCO/refcoco_val.jsonl", "RefCOCO/refcoco_testB.jsonl"]),
        ("class2binary", ["coco/annotations/panoptic_val2017.json", "coco/val2017"]),
        ("mm-vet", ["mm-vet/mm-vet.json", "mm-vet/images"]),
    ],
)
def test_all_missing_files_are_named_at_once(
    name: str, gone: list[str], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (copy / place for place in gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, out = validate(capsys, copy, name)
    assert code == 1 and f"MISSING files and folders: {len(gone)}" in out
    for place in gone:
        assert len(re.findall(rf"{re.escape(str(copy / place))}(?![\w.])", out)) == 1, out


def test_images_are_named_by_folder_and_decoded(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted((copy / "coco2014" / "val2014").iterdir())
    images[0].unlink()
    images[1].unlink()
    images[2].write_bytes(images[2].read_bytes()[:-200])
    images[3].write_bytes(b"PK\x03\x04 a zip")
    code, out = validate(capsys, copy, "pope_test", "mme")
    assert code == 1
    (line,) = [line for line in out.splitlines() if str(images[0].parent) in line]
    assert {images[0].name, images[1].name} <= set(re.split(r"[ ,]+", line))
    assert "MISSING images: 2" in out and "DAMAGED images: 2" in out
    assert f"image {images[2].name}: damaged" in out
    assert f"image {images[3].name}: 10 bytes that are no image" in out
    assert "1 of 2 benchmarks are complete; incomplete: pope_test" in out
    assert out.count("dataset folders:") == 1
    code, out = validate(capsys, copy, "pope_test", "--quick")
    assert code == 1 and "MISSING images: 2" in out and "DAMAGED" not in out


def test_all_names_all(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted((copy / "coco2014" / "val2014").iterdir())
    for image in images:
        image.write_bytes(b"")
    _, out = validate(capsys, copy, "pope_test")
    assert f"and {len(images) - 20} more (--all names them)" in out
    _, out = validate(capsys, copy, "pope_test", "--all")
    assert all(image.name in out for image in images) and "more (--all" not in out


def test_images_in_tables_are_decoded_too(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = copy / "MMBench" / "mmbench_dev_20230712.tsv"
    lines = table.read_text(encoding="utf-8").split("\n")
    column = lines[0].split("\t").index("image")
    cells = lines[1].split("\t")
    content = io.BytesIO()
    Image.new("RGB", (60, 40)).save(content, "JPEG")
    cells[column] = base64.b64encode(content.getvalue()[:-60]).decode()
    table.write_text("\n".join([lines[0], "\t".join(cells), *lines[2:]]), encoding="utf-8")
    code, out = validate(capsys, copy, "mmbench")
    assert code == 1 and "DAMAGED images: 1" in out


def test_a_folder_with_two_names_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    environ = {
        "DATASET": f"{tmp_path}/data",
        "DATASET2": f"{tmp_path}/data/",
        "VLDATASET": f"{tmp_path}/link",
        "DETECTRON2_DATASETS": f"{tmp_path}/other/../data",
    }
    roots = data_roots(None, environ)
    assert roots == (tmp_path / "data",)
    with pytest.raises(DataError) as raised:
        find(roots, "a.json", "a.json", "b.json")
    assert str(raised.value).count("a.json") == 1
    assert data_roots(None, {**environ, "DATASET2": str(tmp_path)}) == (tmp_path / "data", tmp_path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = validate(capsys, tmp_path / "nowhere", "pope_test")
    assert f"{tmp_path / 'nowhere'} (no such folder)" in out


def test_unreadable_files_say_why(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "GQA" / "testdev_balanced_questions.json").write_text('{"1": ')
    code, out = validate(capsys, copy, "gqa_testdev_balanced")
    assert code == 1 and "UNREADABLE: " in out and "cut short" in out
    (copy / "GQA" / "testdev_balanced_questions.json").unlink()
    os.symlink("gone", copy / "GQA" / "testdev_balanced_questions.json")
    code, out = validate(capsys, copy, "gqa_testdev_balanced")
    assert code == 1 and "MISSING files and folders: 1" in out
