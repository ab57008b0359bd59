"""From a COCO panoptic folder to instructions: what is asked agrees with the map that the crayon prompt shows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collavo.crayon import crayon_prompt, format_box, names_only, object_list
from collavo.instructions import CRAYON_KINDS, KINDS
from datasets.instruct.panoptic import PanopticImage, read_panoptic
from datasets.instruct.types import MissingImageRecord
from datasets.types import BadRecord, DataError
from modeling.image import DecodedImage
from modeling.segmenters.coco import COCO_PANOPTIC, display_name
from modeling.segmenters.precomputed import PrecomputedSegmenter
from trainer.data.crayon_samples import ALL_NAMES, crayon_sample

GRID = 35
HORSE, SKY, DOG, PERSON = 19, 187, 18, 1
THING_NAMES = tuple(display_name(category.name) for category in COCO_PANOPTIC if category.is_thing)


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 70, "width": 140} for i in (9, 25)],
        "annotations": list(annotations),
        "categories": [{"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in COCO_PANOPTIC],
    }


def annotation(image_id: int, *classes: int) -> dict[str, Any]:
    segments = [{"id": index + 1, "category_id": number} for index, number in enumerate(classes)]
    return {"image_id": image_id, "file_name": f"{image_id:012d}.png", "segments_info": segments}


def write(folder: Path, data: Any) -> Path:
    (folder / "panoptic_train2017.json").write_text(json.dumps(data))
    return folder / "panoptic_train2017.json"


def test_images_and_their_classes_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path, content(annotation(25, SKY, HORSE, HORSE), annotation(9)))
    first, second = read_panoptic(path, tmp_path / "train2017", False)
    assert isinstance(first, PanopticImage)
    assert isinstance(second, PanopticImage)
    assert first.image.path == tmp_path / "train2017/000000000025.jpg"
    assert (first.image.name, first.categories) == ("000000000025.jpg", ("horse", "sky-other-merged"))
    assert second.categories == ()


def test_odd_annotations_are_reported(tmp_path: Path) -> None:
    odd = annotation(7), annotation(9, 300), annotation(9, SKY), annotation(9), {"image_id": 25}, annotation(25)
    data = content(*odd)
    data["images"].append({"id": "x", "file_name": "x.jpg"})
    (tmp_path / "000000000009.jpg").write_bytes(b"")
    found = list(read_panoptic(write(tmp_path, data), tmp_path, True))
    reasons = [(item.where.rpartition(", ")[2], item.reason) for item in found if isinstance(item, BadRecord)]
    assert reasons == [
        ("images 2", "'id' should be a whole number, got 'x'"),
        ("annotations 4", "lacks 'segments_info'; it has: image_id"),
        ("annotations 0", "image 7 is not among the file's images"),
        ("annotations 1", "classes [300] are not among the file's categories"),
        ("annotations 3", "repeats image 9"),
        ("annotations 5", f"the image is missing; looked for {tmp_path / '000000000025.jpg'}"),
    ]
    assert isinstance(found[-1], MissingImageRecord)
    assert sum(isinstance(item, PanopticImage) for item in found) == 1


@pytest.mark.parametrize("data", [{}, {"images": [], "annotations": []}, {"images": [{"id": 1, "file_name": "a"}]}])
def test_other_files_are_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no COCO panoptic JSON"):
        list(read_panoptic(write(tmp_path, data), tmp_path, False))


@pytest.fixture
def scene(tmp_path: Path) -> tuple[PanopticImage, PrecomputedSegmenter]:
    """Two horses under a sky, and a dog of one pixel that no cell shows."""
    ids = np.zeros((70, 140), np.uint8)
    ids[:20], ids[30:60, 8:40], ids[30:70, 60:100], ids[0, 0] = 1, 2, 3, 4
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], -1)).save(tmp_path / "maps/000000000009.png")
    path = write(tmp_path, content(annotation(9, SKY, HORSE, HORSE, DOG)))
    (image,) = read_panoptic(path, tmp_path, False)
    assert isinstance(image, PanopticImage)
    return image, PrecomputedSegmenter(path, tmp_path / "maps")


def test_instructions_say_what_the_crayon_prompt_shows(scene: tuple[PanopticImage, PrecomputedSegmenter]) -> None:
    image, segmenter = scene
    pixels = np.zeros((GRID, GRID, 3), np.uint8)
    (panoptic,) = segmenter.segment([DecodedImage(pixels, image.image.name)], (GRID, GRID))
    crayon = crayon_prompt(panoptic, GRID)
    boxes = {"sky": "[0.00, 0.00, 1.00, 0.29]", "left": "[0.06, 0.43, 0.29, 0.86]", "right": "[0.43, 0.43, 0.71, 1.00]"}
    horses = f"(#1 horse) {boxes['left']}, (#2 horse) {boxes['right']}"
    answers: dict[str, set[str]] = {}
    binary = {}
    for draw in range(1500):
        sample = crayon_sample(image, crayon, KINDS, (1, draw))
        assert sample is not None
        assert (sample.with_objects, sample.image, sample.id) == (False, image.image, f"000000000009.jpg@1-{draw}")
        (turn,) = sample.turns
        for shown in (object_list(crayon.objects), names_only(crayon.objects), "#1", "(#"):
            assert shown not in turn.question
        answers.setdefault(sample.source, set()).add(turn.answer)
        if sample.source == "class_binary":
            (name,) = re.findall(r"any (.+?)(?: in this image| be seen here)?\?", turn.question)
            binary[name] = turn.answer
    assert set(answers) == set(KINDS)
    assert answers["names"] == {"Sure, it is #1 sky, #1 horse, #2 horse"}
    assert answers["names_boxes"] == {f"Sure, it is (#1 sky) {boxes['sky']}, {horses}"}
    present = {f"Sure, it is {horses}", f"Sure, it is (#1 sky) {boxes['sky']}"}
    assert answers["class_boxes"] > present
    assert all(answer.startswith("There is no ") for answer in answers["class_boxes"] - present)
    assert answers["box_class"] == {"sky", "horse"}
    assert answers["box_numbered"] == {"#1 sky", "#1 horse", "#2 horse"}
    assert {name for name, answer in binary.items() if answer == "Yes"} == {"sky", "horse"}
    assert "dog" not in binary
    assert len(binary) > 60


def test_only_wanted_kinds_and_names_are_asked(scene: tuple[PanopticImage, PrecomputedSegmenter]) -> None:
    image, segmenter = scene
    (panoptic,) = segmenter.segment([DecodedImage(np.zeros((2, 2, 3), np.uint8), image.image.name)], (GRID, GRID))
    crayon = crayon_prompt(panoptic, GRID)
    samples = [crayon_sample(image, crayon, ("box_class",), (draw,), THING_NAMES) for draw in range(50)]
    assert {sample.turns[0].answer for sample in samples if sample} == {"horse"}
    samples = [crayon_sample(image, crayon, CRAYON_KINDS, (draw,)) for draw in range(50)]
    assert {sample.source for sample in samples if sample} == set(CRAYON_KINDS)
    assert crayon_sample(image, crayon, ("class_binary",), (0,), ("dog",)) is None
    again = [crayon_sample(image, crayon, KINDS, (3, 4)) for _ in range(2)]
    assert again[0] == again[1]


def test_names_are_those_of_the_prompt() -> None:
    assert len(set(ALL_NAMES)) == 133
    assert len(set(THING_NAMES)) == 80
    assert {"sky", "horse", "door"} < set(ALL_NAMES)
    assert format_box((0, 0, 1, 1)) == "[0.00, 0.00, 1.00, 1.00]"
