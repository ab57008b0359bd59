"""Probes from panoptic annotations: balanced, deterministic, never wrong about what is there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.options import build_named
from datasets.registration.registry import READERS
from datasets.types import BadRecord, DataError, Record
from pipeline.catalog import load_catalog
from tests.limits import examples

NAMES = {1: ("person", 1), 3: ("car", 1), 18: ("dog", 1), 187: ("sky-other-merged", 0), 44: ("bottle", 1)}


def content(seed: int = 0, num_images: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": 200, "height": 100})
        segments = []
        for k in range(int(rng.integers(0, 5))):
            x, y, w, h = (int(n) for n in rng.integers(1, 50, 4))
            category = int(rng.choice(list(NAMES)))
            segments.append({"id": k + 1, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
        annotations.append({"image_id": number, "file_name": f"{number:012d}.png", "segments_info": segments})
    categories = [{"id": key, "name": name, "isthing": thing} for key, (name, thing) in NAMES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def read(folder: Path, values: Any, **options: Any) -> tuple[list[Record], list[BadRecord]]:
    path = folder / "coco" / "annotations" / "panoptic_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    items = list(build_named(READERS, "coco_panoptic", options, "probe").read([folder]))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, BadRecord)]


@settings(max_examples=examples(25))
@given(seed=st.integers(0, 10**6), limit=st.none() | st.integers(1, 4))
def test_binary_is_balanced_and_true(tmp_path_factory: pytest.TempPathFactory, seed: int, limit: int | None) -> None:
    values = content(seed)
    records, bad = read(tmp_path_factory.mktemp("probe"), values, task="class2binary", limit=limit)
    assert bad == []
    there = {
        (f"{a['image_id']:012d}.jpg", NAMES[s["category_id"]][0])
        for a in values["annotations"]
        for s in a["segments_info"]
    }
    counted = Counter((record.meta["class"], record.target) for record in records)
    for record in records:
        name = record.id.split("/")[0]
        assert ((name, record.meta["class"]) in there) == (record.target == "yes")
        assert record.fields["question"] == f"Is there any {record.meta['class']} in this image?"
    for thing in ("person", "car", "dog", "bottle"):
        present = sum(name == thing for _, name in there)
        asked = present if limit is None else min(present, limit)
        assert counted[thing, "yes"] == asked
        assert counted[thing, "no"] == min(asked, 12 - present)
    assert not any(name == "sky" for name, _ in counted)


def test_boxes_are_fractions_and_name_one_object(tmp_path: Path) -> None:
    values = content()
    box = {"id": 9, "category_id": 1, "bbox": [20, 10, 40, 30], "area": 900, "iscrowd": 0}
    twin = {**box, "id": 10, "category_id": 3, "bbox": [60, 50, 20, 20]}
    values["annotations"][0]["segments_info"] = [box, twin, {**twin, "id": 11, "category_id": 18}]
    values["annotations"][1]["segments_info"] = [{**box, "iscrowd": 1}, {**box, "area": 3, "category_id": 44}]
    values["annotations"][2:] = []
    records, bad = read(tmp_path, values, task="box2class", min_area=0.001)
    assert bad == []
    assert [(r.target, r.fields["box"]) for r in records] == [("person", "[0.10, 0.10, 0.30, 0.40]")]
    assert records[0].meta["names"] == ["bottle", "car", "dog", "person"]
    stuff, _ = read(tmp_path, content(), task="box2class", things_only=False)
    assert "sky" in {record.target for record in stuff}


def test_a_class_that_is_only_there_as_a_crowd_is_not_called_absent(tmp_path: Path) -> None:
    values = content()
    crowd = {"id": 1, "category_id": 18, "bbox": [0, 0, 9, 9], "area": 50, "iscrowd": 1}
    dog = {**crowd, "iscrowd": 0}
    for number, annotation in enumerate(values["annotations"]):
        annotation["segments_info"] = [dog if number < 6 else crowd]
    records, _ = read(tmp_path, values, task="class2binary")
    assert Counter((r.meta["class"], r.target) for r in records) == {("dog", "yes"): 6}


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    values = content(3, 40)
    asked = [[r.id for r in read(tmp_path, values, task="class2binary", limit=2, seed=seed)[0]] for seed in (0, 0, 1)]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 99}, "image 99 is not among the file's images"),
        ({"segments_info": [{"id": 1, "category_id": 7, "bbox": [0, 0, 1, 1], "area": 1}]}, "class 7 is not among"),
        ({"segments_info": [{"id": 1, "category_id": 1, "bbox": [0, 0, 1], "area": 1}]}, "four numbers"),
        ({"segments_info": [{"id": 1, "category_id": 1, "bbox": [0, 0, 1, "x"], "area": 1}]}, "should be a number"),
        ({"segments_info": {}}, "'segments_info' should be a list"),
    ],
)
def test_malformed_annotations_spoil_only_themselves(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    values = content()
    values["annotations"][0] |= change
    _, bad = read(tmp_path, values, task="box2class")
    assert [item.where.rpartition(", ")[2] for item in bad] == ["annotations 0"]
    assert reason in bad[0].reason


def test_another_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a list as 'categories'"):
        read(tmp_path, {"images": [], "annotations": []}, task="box2class")


@pytest.mark.parametrize("name", ["class2binary", "box2class"])
def test_the_declarations_read_the_release(tmp_path: Path, name: str) -> None:
    declared = load_catalog().benchmarks[name]
    records, bad = read(tmp_path, content(), **declared.data)
    assert records
    assert bad == []
    assert declared.render(records[0].fields).endswith("word or phrase.")
