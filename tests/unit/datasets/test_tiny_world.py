"""The tiny world: the same bytes from the same seed, maps and labels that agree."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.tiny.world import THINGS, write_world
from datasets.evaluation import evaluate
from datasets.types import DataError, Record
from modeling.image import DecodedImage
from modeling.segmenters.precomputed import PrecomputedSegmenter
from pipeline.catalog import load_catalog
from pipeline.images import decode_image
from tests.reading import load_records


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "whole"
    write_world(folder, seed=1, scenes=24, size=112)
    return folder


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "world"
    assert write_world(folder, seed=5, scenes=6, size=64)
    return folder


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes_and_another_others(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "same", seed=5, scenes=6, size=64)
    write_world(tmp_path / "other", seed=6, scenes=6, size=64)
    assert digest(tmp_path / "same") == digest(world) != digest(tmp_path / "other")


def test_a_complete_world_is_left_alone_and_another_refused(world: Path) -> None:
    assert not write_world(world, seed=5, scenes=6, size=64)
    with pytest.raises(DataError, match="remove it or choose another folder"):
        write_world(world, seed=6, scenes=6, size=64)


def test_segments_have_their_area_box_and_are_half_visible(world: Path) -> None:
    content = json.loads((world / "coco" / "annotations" / "panoptic_val2017.json").read_text())
    assert len(content["images"]) == len(content["annotations"]) == 6
    for annotation in content["annotations"]:
        maps = world / "coco" / "annotations" / "panoptic_val2017"
        colours = np.asarray(Image.open(maps / annotation["file_name"])).astype(int)
        ids = colours @ [1, 256, 65536]
        assert set(np.unique(ids)) == {info["id"] for info in annotation["segments_info"]}
        for info in annotation["segments_info"]:
            rows, columns = np.nonzero(ids == info["id"])
            assert info["area"] == len(rows)
            left, top, width, height = info["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_labels_agree_with_the_maps(split: str, world: Path) -> None:
    content = json.loads((world / "coco_panoptic" / "panoptic_val.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    held = {files[a["image_id"]]: {names[s["category_id"]] for s in a["segments_info"]} for a in content["annotations"]}
    lines = [json.loads(x) for x in (world / "POPE" / f"coco_pope_{split}.json").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == list(range(1, len(lines) + 1))
    assert sum(line["label"] == "yes" for line in lines) * 2 == len(lines) > 0
    for line in lines:
        asked = next(name for name in THINGS if f" {name} " in line["text"])
        assert (asked in held[line["image"]]) == (line["label"] == "yes")
        assert (world / "coco2014" / "val2014" / line["image"]).is_file()


def perfect(record: Record) -> str:
    """The text of somebody who knows the answer."""
    if isinstance(record.target, list) and "width" in record.meta:
        sides = [record.meta["width"], record.meta["height"]] * 2
        return str([round(corner / side, 4) for corner, side in zip(record.target, sides, strict=True)])
    return str(record.target[0] if isinstance(record.target, (list, tuple)) else record.target)


MAIN = {"mme": ("perception/score", 2000), "mathvista_testmini": ("accuracy", 1), "hallusionbench": ("aAcc", 1)}
MAIN |= {"mmbench": ("circular_accuracy", 1), "mmbench_cn": ("circular_accuracy", 1), "pope_test": ("mean/accuracy", 1)}


@pytest.mark.parametrize("dataset", [benchmark.dataset for benchmark in load_catalog().select("all")])
def test_every_benchmark_reads_its_mini_and_who_knows_gets_the_full_score(dataset: str, whole: Path) -> None:
    benchmark = load_catalog().benchmarks[dataset]
    records, bad = load_records(benchmark, [whole])
    assert bad == []
    assert len(records) >= 8
    segmenter = PrecomputedSegmenter(whole / "coco_panoptic/panoptic_val.json", whole / "coco_panoptic/panoptic_val")
    for record in records:
        assert benchmark.render(record.fields, record.meta.get("absent"))
        if record.image is not None:
            pixels = decode_image(record.image, 112).pixels
            assert segmenter.segment([DecodedImage(pixels, record.image.name)], (8, 8))[0].segments
    if dataset == "mm-vet":  # there is no score without a judge
        return
    evaluation = evaluate(benchmark, [(record, perfect(record)) for record in records])
    rows = {f"{m.group}/{m.name}".removeprefix("/"): m.value for m in evaluation.metrics}
    name, full = MAIN.get(dataset, ("accuracy", 1))
    assert rows[name] == pytest.approx(full), [s for s in evaluation.scored if s.score.value != 1.0][:2]


def test_maps_show_what_images_show(whole: Path) -> None:
    """A thing's pixels have one or two tones, wherever its map says it is."""
    content = json.loads((whole / "coco" / "annotations" / "panoptic_val2017.json").read_text())
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    for image, annotation in list(zip(content["images"], content["annotations"], strict=True))[:8]:
        pixels_of_image = np.asarray(Image.open(whole / "coco" / "val2017" / image["file_name"])).astype(int)
        maps = whole / "coco" / "annotations" / "panoptic_val2017"
        ids = np.asarray(Image.open(maps / annotation["file_name"])).astype(int) @ [1, 256, 65536]
        for info in annotation["segments_info"]:
            if info["category_id"] in things:
                pixels = pixels_of_image[ids == info["id"]]
                centre = np.median(pixels, axis=0)
                assert np.mean(np.abs(pixels - centre).max(1) < 60) > 0.3
