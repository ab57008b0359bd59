"""Panoptic maps from disk that do not fit what is said of them: the file and the record are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modeling.image import DecodedImage
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.precomputed import PrecomputedSegmenter

IMAGE = DecodedImage(np.zeros((8, 8, 3), np.uint8), "1.jpg")
Change = Callable[[dict[str, Any]], object]


def written(folder: Path, change: Change, side: int = 4) -> PrecomputedSegmenter:
    """Two segments, 7 (a person) on the left and 9 (a car) in one corner."""
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 4, "width": 4}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "1.png",
                "segments_info": [{"id": 7, "category_id": 1}, {"id": 9, "category_id": 3}],
            }
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    change(content)
    (folder / "maps.json").write_text(json.dumps(content))
    colours = np.zeros((side, side, 3), np.uint8)
    colours[:, : side // 2, 0] = 7
    colours[0, -1, 0] = 9
    Image.fromarray(colours).save(folder / "1.png")
    return PrecomputedSegmenter(folder / "maps.json", folder)


def test_segments_that_no_cell_shows_are_left_out(tmp_path: Path) -> None:
    segmenter = written(tmp_path, lambda content: None)
    assert [s.category_id for s in segmenter.segment([IMAGE], (4, 4))[0].segments] == [0, 2]
    assert [s.category_id for s in segmenter.segment([IMAGE], (2, 2))[0].segments] == [0]
    absent = written(tmp_path, lambda content: content["annotations"][0]["segments_info"][1].update(id=8))
    assert [s.category_id for s in absent.segment([IMAGE], (4, 4))[0].segments] == [0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("annotations"), "it has no list of annotations"),
        (lambda c: c.update(categories={}), "it has no list of categories"),
        (lambda c: c["annotations"].append({"file_name": "2.png"}), "annotations 1: it lacks 'image_id'"),
        (lambda c: c["annotations"].append({"image_id": 2}), "annotations 1: it lacks 'file_name'"),
        (lambda c: c["annotations"].append("x"), "annotations 1: "),
        (lambda c: c["annotations"][0].update(image_id=[]), "annotations 0: "),
        (lambda c: c["images"].append({"file_name": "2.jpg"}), "images 1: it lacks 'id'"),
        (lambda c: c["images"].append({"id": [], "file_name": "2.jpg"}), "images 1: 'id' should be a number or a text"),
        (lambda c: c["images"][0].update(height="tall"), "images 0: invalid literal"),
        (lambda c: c["categories"].append({"name": "car"}), "categories 2: it lacks 'id'"),
        (
            lambda c: c["categories"].append({"id": 999, "name": "spaceship"}),
            "categories 2: class 999, 'spaceship', is none of COCO's 133 panoptic ones",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_its_record(change: Change, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SegmenterError) as caught:
        written(tmp_path, change)
    assert str(tmp_path / "maps.json") in str(caught.value) and reason in str(caught.value)


def test_broken_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "maps.json").write_text('{"annotations": [')
    with pytest.raises(SegmenterError, match="maps.json is no valid JSON: Expecting value"):
        PrecomputedSegmenter(tmp_path / "maps.json", tmp_path)


@pytest.mark.parametrize(
    ("change", "side", "reason"),
    [
        (lambda c: None, 6, "the PNG has 6 x 6 pixels, the image 4 x 4"),
        (
            lambda c: c["annotations"][0]["segments_info"][1].update(category_id=5),
            4,
            "category 5 is not among the file",
        ),
        (lambda c: c["annotations"][0]["segments_info"][1].pop("id"), 4, "it lacks 'id'"),
        (lambda c: c["annotations"][0].pop("segments_info"), 4, "it lacks 'segments_info'"),
        (lambda c: c["annotations"][0].update(segments_info=3), 4, "not iterable"),
    ],
)
def test_a_map_that_does_not_fit_is_named_with_its_image(
    change: Change, side: int, reason: str, tmp_path: Path
) -> None:
    segmenter = written(tmp_path, change, side)
    with pytest.raises(SegmenterError) as caught:
        segmenter.segment([IMAGE], (4, 4))
    for part in ("image 1.jpg", str(tmp_path / "1.png"), str(tmp_path / "maps.json"), reason):
        assert part in str(caught.value)


def test_a_missing_or_damaged_png_is_named(tmp_path: Path) -> None:
    segmenter = written(tmp_path, lambda content: None)
    for damage in (b"no image", None):
        (tmp_path / "1.png").unlink()
        if damage:
            (tmp_path / "1.png").write_bytes(damage)
        with pytest.raises(SegmenterError, match=r"image 1.jpg: panoptic map .*1.png cannot be read"):
            segmenter.segment([IMAGE], (4, 4))
