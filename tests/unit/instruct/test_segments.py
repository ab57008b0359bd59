"""Segments to learn from: what is read, what is left out, and what is said of malformed records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.instruct.segments import SegmentedImage, read_classes, read_segments, segment_map
from datasets.instruct.types import MissingImageRecord
from datasets.types import BadRecord, DataError

CATEGORIES = [{"id": 18, "name": "dog", "isthing": 1}, {"id": 193, "name": "grass-merged", "isthing": 0}]


def written(folder: Path, annotations: list[Any], categories: list[Any] = CATEGORIES) -> Path:
    """A file on two images, one of which is there with a map of two segments, a crowd, and void."""
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]
    file = folder / "panoptic.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    ids = np.array([[300, 300, 7, 7], [300, 70000, 70000, 0]])
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(folder / "m.png")
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(folder / "1.png")
    return file


def record(image: int = 1, **more: Any) -> dict[str, Any]:
    segments = [(300, 193, 0), (7, 18, 1), (70000, 18, 0), (9, 18, 0)]
    infos = [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in segments]
    return {"image_id": image, "file_name": "m.png", "segments_info": infos, **more}


def test_segments_come_without_crowds_and_without_those_that_no_pixel_shows(tmp_path: Path) -> None:
    file = written(tmp_path, [record()])
    (image,) = read_segments(file, tmp_path, tmp_path)
    assert isinstance(image, SegmentedImage)
    assert image.segments == ((300, 193), (70000, 18), (9, 18))
    numbers, classes = segment_map(image)
    assert numbers.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert classes == (193, 18)
    assert [(one.id, one.is_thing) for one in read_classes(file)] == [(18, True), (193, False)]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (record(9), "image 9 is not among the file's images"),
        (record(segments_info=[{"id": 1, "category_id": 5}]), r"classes \[5\] are not among the file's categories"),
        (record(segments_info=[{"category_id": 18}]), "id"),
        (record(segments_info="none"), "segments_info"),
        ({"image_id": 1, "segments_info": []}, "file_name"),
        (record(file_name="../m.png"), "expected the name of an image below"),
        ("text", "expected an object with 'image_id', got str"),
    ],
)
def test_a_malformed_record_is_named_and_the_others_are_read(tmp_path: Path, annotation: Any, reason: str) -> None:
    file = written(tmp_path, [annotation, record()])
    found = list(read_segments(file, tmp_path, tmp_path))
    bad = [item for item in found if isinstance(item, BadRecord)]
    assert len(found) == 2 and len(bad) == 1
    assert bad[0].where == f"{file}, annotations 0"
    assert re.search(reason, bad[0].reason), bad[0].reason


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (missing,) = read_segments(written(tmp_path, [record(2)]), tmp_path, tmp_path)
    assert isinstance(missing, MissingImageRecord) and "2.png" in missing.reason
    (image,) = read_segments(written(tmp_path, [record(file_name="gone.png")]), tmp_path, tmp_path)
    assert isinstance(image, SegmentedImage)
    with pytest.raises(DataError, match=r"image 1\.png: panoptic map .*gone\.png cannot be read"):
        segment_map(image)
    with pytest.raises(DataError, match="categories 0"):
        read_classes(written(tmp_path, [], [{"id": 1, "isthing": 1}]))
    with pytest.raises(DataError, match="no list of categories"):
        read_classes(written(tmp_path, [], []))
