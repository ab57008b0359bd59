"""``segment`` with every backend: images of all modes and sizes, and files that COCO's readers understand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modeling.image import DecodedImage
from modeling.segmenters import backends
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import COCO_BY_INDEX, COCO_PANOPTIC, INDEX_BY_NAME, Category
from modeling.segmenters.coco_format import MOST_PIXELS, at_own_size, unique_stems
from pipeline.commands.cli import main
from pipeline.commands.drawing import SMALLEST, class_colour, drawn_segments, overlay
from tests.unit.segmenters.tiny_mask2former import save_tiny_mask2former
from tests.unit.segmenters.tiny_xdecoder import save_tiny_xdecoder

SIZES = {"plain.jpg": (61, 40), "dot.png": (1, 1), "row.png": (150, 1), "column.png": (1, 150), "thin.png": (2, 700)}
MODES = ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "I;16", "F")


def pixels(width: int, height: int) -> Any:
    coarse = np.random.default_rng(width).integers(0, 256, (3, 3, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


NOT_HERE = "detectron2"
"""On no package index; tests/unit/segmenters/test_contract.py has a case for where it is installed."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of odd sizes, and one of each mode."""
    folder = tmp_path_factory.mktemp("paths")
    for name, size in SIZES.items():
        Image.fromarray(pixels(*size)).save(folder / name)
    for mode in MODES:
        image = Image.fromarray(pixels(33, 21)).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode)
        image.save(folder / f"mode_{mode.replace(';', '')}.{'tif' if mode in ('CMYK', 'F', 'PA', 'I;16') else 'png'}")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def backend_settings(tmp_path_factory: pytest.TempPathFactory, paths: list[Path]) -> dict[str, list[str]]:
    """Overrides for every backend, tiny ones."""
    folder = tmp_path_factory.mktemp("backends")
    images, annotations = [], []
    for number, path in enumerate(paths):
        width, height = Image.open(path).size
        ids = np.arange(height * width).reshape(height, width) * 3 // (height * width)  # 0, 1, 2
        colours = np.stack([ids * 0, ids, ids * 0], -1).astype(np.uint8)
        Image.fromarray(colours).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": path.name})
        segments = [{"id": 256 * n, "category_id": c} for n, c in ((1, 18), (2, 200)) if (ids == n).any()]
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    categories = [{"id": c.id, "name": c.name} for c in COCO_PANOPTIC]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "maps.json").write_text(json.dumps(content))
    thresholds = ["SEGMENTER.THRESHOLD", "0.02", "SEGMENTER.MASK_THRESHOLD", "0.02"]
    mask2former, xdecoder = save_tiny_mask2former(folder / "m2f"), save_tiny_xdecoder(folder / "xdecoder")
    small = ["SEGMENTER.SHORT_SIDE", "32", "SEGMENTER.LONG_SIDE", "96"]
    return {
        "mask2former": ["SEGMENTER.PATH", str(mask2former), *thresholds],
        "none": ["SEGMENTER.NAME", "none"],
        "precomputed": [
            *("SEGMENTER.NAME", "precomputed", "SEGMENTER.IMAGES", str(folder)),
            *("SEGMENTER.PATH", str(folder / "maps.json")),
        ],
        "xdecoder": ["SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", str(xdecoder), *thresholds, *small],
    }


def segment(files: list[Path], out: Path, overrides: list[str]) -> int:
    return main(["segment", *map(str, files), "--out", str(out), "--overrides", *overrides])


def ids_of(path: Path) -> Any:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image, np.int64) @ [1, 256, 65536]


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "panoptic.json").read_text())
    return content


def test_every_backend_has_settings(backend_settings: dict[str, list[str]]) -> None:
    assert sorted({*backend_settings, NOT_HERE}) == backends()


@pytest.mark.parametrize("name", [name for name in backends() if name != NOT_HERE])
def test_files_agree_with_each_other_and_with_the_images(
    name: str, paths: list[Path], backend_settings: dict[str, list[str]], tmp_path: Path
) -> None:
    assert segment(paths, tmp_path, backend_settings[name]) == 0
    content = read(tmp_path)
    classes = {category["id"]: category for category in content["categories"]}
    assert {number: c["name"] for number, c in classes.items()} == {c.id: c.name for c in COCO_PANOPTIC}
    assert [image["file_name"] for image in content["images"]] == [path.name for path in paths]
    for path, image, annotation in zip(paths, content["images"], content["annotations"], strict=True):
        assert annotation["image_id"] == image["id"]
        assert annotation["file_name"] == f"{path.stem}.png"
        ids = ids_of(tmp_path / annotation["file_name"])
        width, height = Image.open(path).size
        assert ids.shape == (height, width) == (image["height"], image["width"])
        assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(ids).tolist()) - {0}
        for segment_info in annotation["segments_info"]:
            rows, columns = np.nonzero(ids == segment_info["id"])
            left, top, w, h = segment_info["bbox"]
            assert (left, top, left + w, top + h) == (
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            )  # fmt: skip
            assert segment_info["area"] == len(rows)
            assert (segment_info["iscrowd"], segment_info["category_id"] in classes) == (0, True)
            assert 0 <= segment_info["score"] <= 1
        with Image.open(tmp_path / f"{path.stem}_overlay.png") as shown:
            scale = max(1, SMALLEST // max(width, height))
            assert shown.width > width * scale
            assert shown.height >= height * scale
    if name != "none":
        assert any(annotation["segments_info"] for annotation in content["annotations"])


def test_what_is_written_can_be_read_back_as_precomputed(
    paths: list[Path], backend_settings: dict[str, list[str]], tmp_path: Path
) -> None:
    assert segment(paths, tmp_path / "one", backend_settings["xdecoder"]) == 0
    again = ["SEGMENTER.NAME", "precomputed", "SEGMENTER.PATH", str(tmp_path / "one" / "panoptic.json")]
    assert segment(paths, tmp_path / "two", [*again, "SEGMENTER.IMAGES", str(tmp_path / "one")]) == 0
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    for first, second in zip(one["annotations"], two["annotations"], strict=True):
        assert first == {**second, "segments_info": first["segments_info"]}
        for a, b in zip(first["segments_info"], second["segments_info"], strict=True):
            assert a == {**b, "score": a["score"]}
        assert np.array_equal(*(ids_of(tmp_path / name / first["file_name"]) for name in ("one", "two")))


def test_broken_images_are_named_and_the_others_done(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(paths[-1].read_bytes()[:200])
    broken = [tmp_path / "text.png", tmp_path / "cut.jpg", tmp_path / "absent.jpg", tmp_path]
    assert segment([broken[0], paths[0], *broken[1:], paths[1]], tmp_path / "out", ["SEGMENTER.NAME", "none"]) == 1
    shown = capsys.readouterr()
    assert all(f"error: {path}: " in shown.err for path in broken)
    assert "2 of 6 images" in shown.out
    assert [image["file_name"] for image in read(tmp_path / "out")["images"]] == [p.name for p in paths[:2]]


def test_a_image_without_a_map_is_named(
    paths: list[Path], backend_settings: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(paths[0], tmp_path / "stranger.png")
    assert segment([tmp_path / "stranger.png", paths[1]], tmp_path / "out", backend_settings["precomputed"]) == 1
    assert "image stranger.png: " in capsys.readouterr().err
    assert len(read(tmp_path / "out")["annotations"]) == 1


def test_images_of_one_stem_are_kept_apart(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "x/a.png", "x/a.jpg", "a_overlay.png", "a_2.png")]
    (tmp_path / "x").mkdir()
    for number, file in enumerate(files, start=3):
        Image.fromarray(pixels(number, 4)).save(file)
    assert segment(files, tmp_path / "out", ["SEGMENTER.NAME", "none"]) == 0
    content = read(tmp_path / "out")
    written = [annotation["file_name"] for annotation in content["annotations"]]
    assert written == ["a.png", "a_3.png", "a_4.png", "a_overlay_2.png", "a_2.png"]
    assert [ids_of(tmp_path / "out" / name).shape[1] for name in written] == [3, 4, 5, 6, 7]
    assert len(list((tmp_path / "out").iterdir())) == 11
    assert [image["file_name"] for image in content["images"]] == [
        *(str(tmp_path / "a.png"), str(tmp_path / "x/a.png")),
        *("a.jpg", "a_overlay.png", "a_2.png"),
    ]


def test_stems_of_paths_with_folders() -> None:
    assert unique_stems(["a/b.jpg", "a_b.png", "c", "c.d.png"]) == ["a_b", "a_b_2", "c", "c.d"]


@pytest.mark.parametrize("name", ["a.png", "a_overlay.png"])
def test_nothing_that_is_read_is_overwritten(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("a.png", "a_overlay.png"):
        Image.fromarray(pixels(9, 4)).save(tmp_path / file)
    before = (tmp_path / name).read_bytes()
    assert segment([tmp_path / name], tmp_path, ["SEGMENTER.NAME", "none"]) == 2
    assert "is one of the images and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


def test_mistakes_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(pixels(9, 4)).save(tmp_path / "a.png")
    assert segment([tmp_path / "a.png"], tmp_path / "a.png", ["SEGMENTER.NAME", "none"]) == 2
    assert "is no folder that can be written to" in capsys.readouterr().err
    assert segment([tmp_path / "a.png"], tmp_path / "out", ["SEGMENTER.NAME", "nune"]) == 2
    assert "did you mean none?" in capsys.readouterr().err


class _Huge:
    """Remembers the sizes it is asked for."""

    fingerprint = "huge"
    categories = COCO_BY_INDEX
    reads_maps = False

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def segment(self, paths: Any, size: tuple[int, int]) -> list[PanopticMap]:
        self.asked.append(size)
        ids = np.zeros(size, np.int32)
        ids[: size[0] // 2] = 1
        return [PanopticMap(ids, (Segment(id=1, category_id=0, score=1.0),)) for _ in paths]


def test_maps_of_huge_images_are_asked_for_at_a_bounded_size() -> None:
    segmenter = _Huge()
    sizes = [(2100, 2200), (3, 5), (1, 5 * 10**6), (2100, 2200)]
    paths = [DecodedImage(np.broadcast_to(np.uint8(0), (*size, 3)), f"p{i}") for i, size in enumerate(sizes)]
    maps = at_own_size(segmenter, paths)
    assert [panoptic.id_map.shape for panoptic in maps] == sizes
    assert len(segmenter.asked) == 3
    assert segmenter.asked[1] == (3, 5)
    assert all(height * width <= MOST_PIXELS for height, width in segmenter.asked)
    assert abs(int(maps[0].id_map.sum()) - 1050 * 2200) <= 2200 * 3
    assert maps[1].id_map.tolist() == [[1] * 5, [0] * 5, [0] * 5]


def test_class_colours_are_fixed_and_distinct() -> None:
    colours = [class_colour(index) for index in range(len(COCO_PANOPTIC))]
    assert len(set(colours)) == 133
    distances = [
        sum(abs(a - b) for a, b in zip(one, other, strict=True))
        for index, one in enumerate(colours)
        for other in colours[:index]
    ]
    assert min(distances) >= 20
    assert (class_colour(0), class_colour(132)) == (colours[0], colours[132])


def scene() -> PanopticMap:
    ids = np.zeros((300, 500), np.int32)
    ids[150:] = 1
    ids[20:120, 30:130], ids[40:140, 300:420] = 2, 3
    dog, grass = INDEX_BY_NAME["dog"], INDEX_BY_NAME["grass-merged"]
    segments = (
        Segment(id=1, category_id=grass, score=1.0),
        *(Segment(id=n, category_id=dog, score=1.0) for n in (2, 3)),
    )
    return PanopticMap(ids, segments)


def test_an_overlay_has_colours_boxes_names_and_a_legend() -> None:
    panoptic, grey = scene(), np.full((300, 500, 3), 120, np.uint8)
    shown = np.asarray(overlay(grey, panoptic, COCO_BY_INDEX)).astype(int)
    dog, grass = (np.array(class_colour(INDEX_BY_NAME[name])) for name in ("dog", "grass-merged"))
    assert np.abs(shown[30, 40] - (0.55 * dog + 0.45 * 120)).max() <= 1  # a pixel away from box and name
    assert np.abs(shown[290, 20] - (0.55 * grass + 0.45 * 120)).max() <= 1
    assert shown[145, 200].tolist() == [120] * 3  # no segment
    for left, top, right, bottom in ((30, 20, 130, 120), (300, 40, 420, 140)):
        corners = [(top, left), (top, right - 1), (bottom - 1, left), (bottom - 1, right - 1)]
        assert all(shown[corner].tolist() == dog.tolist() for corner in corners)
    legend = shown[:, 500:].reshape(-1, 3).tolist()
    assert all(legend.count(colour.tolist()) > 50 for colour in (dog, grass))
    assert shown[20, 499 + 5].tolist() == [255] * 3
    names = [(item.name, item.box) for item in drawn_segments(panoptic, COCO_BY_INDEX)]
    assert names == [
        ("#1 grass", (0, 150, 500, 300)), ("#1 dog", (30, 20, 130, 120)), ("#2 dog", (300, 40, 420, 140))
    ]  # fmt: skip


def test_names_stand_on_their_segments_even_where_the_middle_is_elsewhere() -> None:
    ring = np.ones((200, 900), np.int32)
    ring[5:195, 5:895] = 0
    line = np.zeros((900, 2), np.int32)
    line[7, 1] = 1
    for ids in (ring, line, ring.T.copy()):
        item = next(drawn_segments(PanopticMap(ids, (Segment(id=1, category_id=5, score=1.0),)), COCO_BY_INDEX))
        assert ids[item.at[1], item.at[0]] == 1


def test_an_open_vocabulary_is_named_as_the_segmenter_does() -> None:
    categories = {4: Category(1005, "flying fish-other", True)}
    panoptic = PanopticMap(np.ones((4, 5), np.int32), (Segment(id=1, category_id=4, score=0.5),))
    assert [item.name for item in drawn_segments(panoptic, categories)] == ["#1 flying fish"]
    overlay(np.zeros((4, 5, 3), np.uint8), panoptic, categories)


def test_chosen_classes_are_the_categories_of_the_json(
    paths: list[Path], backend_settings: dict[str, list[str]], tmp_path: Path
) -> None:
    chosen = [*backend_settings["xdecoder"], "SEGMENTER.CLASSES", "[dog,sky,cat]"]
    assert segment(paths[:3], tmp_path, chosen) == 0
    content = read(tmp_path)
    assert [(c["id"], c["name"], c["isthing"]) for c in content["categories"]] == [
        (17, "cat", 1),
        (18, "dog", 1),
        (187, "sky", 0),
    ]
    used = {s["category_id"] for a in content["annotations"] for s in a["segments_info"]}
    assert used <= {17, 18, 187}
