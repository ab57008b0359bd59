"""COCO's panoptic annotations as records: what is malformed or missing is named and left out, the rest is kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.evaluation.panoptic_quality import MapScore, PanopticQualityScorer
from datasets.types import DataError, Record, Scored, unanswered
from pipeline.catalog import load_catalog
from tests.reading import load_records

BENCHMARK = load_catalog().benchmarks["coco_panoptic_val"]
CATEGORIES = [{"id": 18, "name": "dog", "isthing": 1}, {"id": 187, "name": "sky-other-merged", "isthing": 0}]


def annotation(number: int, **more: Any) -> dict[str, Any]:
    segments = [{"id": 7, "category_id": 18, "iscrowd": 1}, {"id": 70000, "category_id": 187}]
    return {"image_id": number, "file_name": f"{number}.png", "segments_info": segments} | more


def write(root: Path, annotations: list[Any], maps: int = 9) -> None:
    folder = root / "coco" / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    for number in range(maps):
        (folder / f"{number}.png").write_bytes(b"")
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(9)]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    folder.with_suffix(".json").write_text(json.dumps(content))


def test_records_hold_segments_map_and_classes(tmp_path: Path) -> None:
    write(tmp_path, [annotation(3), annotation(1, segments_info=[])])
    records, bad = load_records(BENCHMARK, [tmp_path])
    assert bad == []
    assert [record.id for record in records] == ["3.jpg", "1.jpg"]
    assert records[0].target == [
        {"id": 7, "category_id": 18, "iscrowd": 1},
        {"id": 70000, "category_id": 187, "iscrowd": 0},
    ]
    assert records[0].meta["map"].path == tmp_path / "coco/annotations/panoptic_val2017/3.png"
    assert records[0].meta["categories"] == {18: ("dog", True), 187: ("sky-other-merged", False)}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (annotation(44), "image 44 is not among the file's images"),
        (annotation(2), "repeats id 2.jpg"),
        (annotation(3, file_name="../3.png"), "expected the name of an image below"),
        (annotation(3, file_name="33.png"), "image 3.jpg: its map is missing; looked for"),
        (annotation(3, segments_info=[{"id": 1, "category_id": 2}]), "class 2 is not among the file's categories"),
        (annotation(3, segments_info=[{"id": 0, "category_id": 18}]), "segment 0: ids count from 1"),
        (annotation(3, segments_info=[{"id": 5, "category_id": 18}] * 2), "segment 5: .* listed once"),
        (annotation(3, segments_info={}), "'segments_info' should be a list"),
        (7, "expected an object with 'image_id'"),
    ],
)
def test_a_malformed_annotation_is_named_and_left_out(item: Any, reason: str, tmp_path: Path) -> None:
    write(tmp_path, [annotation(2), item, annotation(4)])
    records, bad = load_records(BENCHMARK, [tmp_path])
    assert [record.id for record in records] == ["2.jpg", "4.jpg"]
    assert len(bad) == 1
    assert "annotations 1" in bad[0].where
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(bad[0].reason)


def test_a_missing_folder_of_maps_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, [annotation(1)])
    (tmp_path / "coco/annotations/panoptic_val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not found; looked for\n  .*annotations/panoptic_val2017"):
        load_records(BENCHMARK, [tmp_path])


def scored(name: str, quality: dict[str, list[float]], **more: Any) -> Scored:
    categories = {18: ("dog", True), 3: ("car", True), 187: ("sky-other-merged", False)}
    record = Record(id=name, image=None, fields={}, target=[], meta={"categories": categories})
    text = json.dumps({"quality": quality, **more})
    return Scored(record=record, text=text, score=PanopticQualityScorer().score(record, text))


def test_figures_are_averages_over_the_classes_that_occur() -> None:
    first = scored("a", {"18": [1.5, 2, 1, 0], "187": [0.9, 1, 0, 0], "3": [0.0, 0, 0, 0]})
    second = scored("b", {"18": [0.6, 1, 0, 3]}, unlisted=2)
    left_out = unanswered(Record(id="c", image=None, fields={}, target=[], meta={"categories": {}}))
    metrics = PanopticQualityScorer().summarize([first, second, left_out])
    values = {f"{m.group}/{m.name}": m.value for m in metrics}
    dog = 2.1 / (3 + 0.5 + 1.5)
    assert values["class/dog/PQ"] == values["things/PQ"] == pytest.approx(dog)
    assert values["class/dog/SQ"] == pytest.approx(0.7)
    assert values["class/dog/RQ"] == pytest.approx(0.6)
    assert (values["class/dog/tp"], values["class/dog/fp"], values["class/dog/fn"]) == (3, 1, 3)
    assert values["/PQ"] == pytest.approx((dog + 0.9) / 2)
    assert (values["/classes"], values["things/classes"], values["stuff/classes"]) == (2, 1, 1)
    assert values["/unlisted_segments"] == 2
    assert {m.num for m in metrics if m.group in ("", "things", "stuff")} == {2}
    assert "class/car/PQ" not in values


def test_nothing_at_all_is_undefined_and_strange_texts_are_no_answer() -> None:
    assert {m.name: m.value for m in PanopticQualityScorer().summarize([])} == {
        "PQ": None,
        "SQ": None,
        "RQ": None,
        "classes": 0,
    }
    record = Record(id="a", image=None, fields={}, target=[])
    for text in ("", "a dog", "[]", "{}", '{"quality": {"18": [1, 2]}}', '{"quality": {"x": [1, 2, 3, 4]}}'):
        verdict = PanopticQualityScorer().score(record, text)
        assert isinstance(verdict, MapScore)
        assert (verdict.value, verdict.no_answer, verdict.tallies) == (None, True, None)
    assert PanopticQualityScorer().score(record, '{"quality": {}}').value == 1.0
