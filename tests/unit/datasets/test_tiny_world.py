"""The tiny world: the same bytes from the same seed, maps and labels that agree."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.tiny_world import THINGS, write_world
from datasets.types import DataError


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "world"
    assert write_world(folder, seed=5, scenes=6, size=64)
    return folder


def test_a_seed_gives_the_same_bytes_and_another_others(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "same", seed=5, scenes=6, size=64)
    write_world(tmp_path / "other", seed=6, scenes=6, size=64)
    assert digest(tmp_path / "same") == digest(world) != digest(tmp_path / "other")


def test_a_complete_world_is_left_alone_and_another_refused(world: Path) -> None:
    assert not write_world(world, seed=5, scenes=6, size=64)
    with pytest.raises(DataError, match="remove it or choose another folder"):
        write_world(world, seed=6, scenes=6, size=64)


def test_segments_have_their_area_box_and_are_half_visible(world: Path) -> None:
    content = json.loads((world / "coco_panoptic" / "panoptic_val.json").read_text())
    assert len(content["images"]) == len(content["annotations"]) == 6
    for annotation in content["annotations"]:
        colours = np.asarray(Image.open(world / "coco_panoptic" / "panoptic_val" / annotation["file_name"])).astype(int)
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
    held = {
        a["file_name"].replace(".png", ".jpg"): {names[s["category_id"]] for s in a["segments_info"]}
        for a in content["annotations"]
    }
    lines = [json.loads(x) for x in (world / "POPE" / f"coco_pope_{split}.json").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == list(range(1, len(lines) + 1))
    assert sum(line["label"] == "yes" for line in lines) * 2 == len(lines) > 0
    for line in lines:
        asked = next(name for name in THINGS if f" {name} " in line["text"])
        assert (asked in held[line["image"]]) == (line["label"] == "yes")
        assert (world / "coco2014" / "val2014" / line["image"]).is_file()
