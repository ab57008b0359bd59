"""Panoptic quality through the entry: the official rule's figures, for any backend and any number of processes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets.tiny.world import write_world
from modeling.segmenters.xdecoder.segmenter import XDecoderSegmenter
from pipeline.commands.cli import main
from tests.limits import free_port
from tests.predicted import predicted
from tests.unit.pipeline.official_quality import averages, one_image
from tests.unit.segmenters.tiny_xdecoder import save_tiny_xdecoder
from tests.warm import run_warm

NAME = "coco_panoptic_val"


def ids_of(path: Path) -> Any:
    return np.asarray(Image.open(path), np.int64) @ [1, 256, 65536]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world whose ground-truth maps have crowds and voids."""
    root = tmp_path_factory.mktemp("world") / "data"
    write_world(root, seed=4, scenes=8, size=72)
    file = root / "coco/annotations/panoptic_val2017.json"
    content = json.loads(file.read_text())
    for number, annotation in enumerate(content["annotations"]):
        segments = annotation["segments_info"]
        segments[-1]["iscrowd"] = number % 2
        if number % 3 == 0:
            gone = segments.pop(len(segments) // 2)
            png = file.with_suffix("") / annotation["file_name"]
            pixels = np.array(Image.open(png))
            pixels[ids_of(png) == gone["id"]] = 0
            Image.fromarray(pixels).save(png)
    file.write_text(json.dumps(content))
    return root


def settings(world: Path, save: Path, maps: Path | None, *more: object) -> list[str]:
    words: list[object] = ["eval", "--overrides", "DATASETS.TEST", NAME, "DATASETS.ROOT", world, "SAVE_DIR", save]
    if maps is None:
        return [*map(str, words), *map(str, more)]
    segmenter = ["SEGMENTER.NAME", "precomputed", "SEGMENTER.PATH", f"{maps}.json", "SEGMENTER.IMAGES", maps]
    return [*map(str, [*words, *segmenter, *more])]


def results(save: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((save / NAME / "results.json").read_text())
    return content


def official(world: Path, folder: Path) -> dict[str, tuple[float, float, float, int]]:
    """Figures of the files that a run wrote, by the rule written out again."""
    truth = json.loads((world / "coco/annotations/panoptic_val2017.json").read_text())
    found = {a["image_id"]: a for a in json.loads((folder / "panoptic.json").read_text())["annotations"]}
    images = []
    for true in truth["annotations"]:
        if true["image_id"] in found:
            mine = found[true["image_id"]]
            classes = {s["id"]: s["category_id"] for s in mine["segments_info"]}
            maps = world / "coco/annotations/panoptic_val2017" / true["file_name"], folder / "panoptic"
            ids = ids_of(maps[1] / mine["file_name"])
            assert {*np.unique(ids)} - {0} == {*classes}
            assert {s["id"]: s["area"] for s in mine["segments_info"]} == {n: (ids == n).sum() for n in classes}
            images.append(one_image(ids_of(maps[0]), true["segments_info"], ids, classes))
    things = {c["id"] for c in truth["categories"] if c["isthing"]}
    stuff = {c["id"] for c in truth["categories"]} - things
    return {"all": averages(images), "things": averages(images, things), "stuff": averages(images, stuff)}


def agree(scores: Any, wanted: dict[str, tuple[float, float, float, int]]) -> bool:
    figures = [[scores[group][name] for name in ("PQ", "SQ", "RQ", "classes")] for group in wanted]
    return bool(np.allclose(np.array(figures, float), np.array(list(wanted.values())), atol=1e-6))


def test_true_maps_are_perfect_and_no_maps_worth_nothing(world: Path, tmp_path: Path) -> None:
    assert main(settings(world, tmp_path / "true", world / "coco/annotations/panoptic_val2017")) == 0
    scores = results(tmp_path / "true")["scores"]
    assert all(scores[group][name] == 1.0 for group in ("all", "things", "stuff") for name in ("PQ", "SQ", "RQ"))
    assert main(settings(world, tmp_path / "none", None, "SEGMENTER.NAME", "none")) == 0
    none = results(tmp_path / "none")
    assert none["scores"]["all"]["PQ"] == 0.0
    assert none["scores"]["all"]["classes"] == scores["all"]["classes"]
    assert none["counts"]["answered"] == 8


def test_maps_made_ahead_are_those_that_are_measured(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the images' own size: the same figures as without a cache, and the network is not asked again."""
    given: list[object] = ["SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", save_tiny_xdecoder(tmp_path / "model")]
    given += ["SEGMENTER.THRESHOLD", 0.1, "SEGMENTER.MASK_THRESHOLD", 0.05, "SEGMENTER.SHORT_SIDE", 32]
    assert main(settings(world, tmp_path / "without", None, *given, "SEGMENTER.CACHE", "off")) == 0
    given += ["SEGMENTER.CACHE", tmp_path / "cache"]
    assert main(["maps", NAME, *settings(world, tmp_path / "with", None, *given)[1:]]) == 0

    def never(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(XDecoderSegmenter, "segment", never)
    assert main(settings(world, tmp_path / "with", None, *given)) == 0
    with_cache, without = results(tmp_path / "with"), results(tmp_path / "without")
    assert with_cache["scores"] == without["scores"] and with_cache["counts"]["answered"] == 8
    maps = [sorted((tmp_path / name / NAME / "panoptic").iterdir()) for name in ("with", "without")]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*maps, strict=True)) and len(maps[0]) == 8


def test_one_and_two_processes_give_the_official_figures(world: Path, tmp_path: Path) -> None:
    maps = world / "coco_panoptic/panoptic_spoiled"
    assert main(settings(world, tmp_path / "one", maps, "COCO_PANOPTIC.TEST.BATCH_SIZE_TOTAL", 3)) == 0
    port = str(free_port())
    command = ["-m", "accelerate.commands.launch", "--config_file", "configs/accel/cpu_accel.yaml"]
    command += ["--num_processes", "2", "--main_process_port", port, "lbk_entry.py"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command += settings(world, tmp_path / "two", maps)
    done = run_warm(command, env)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert (one["metrics"], one["counts"]) == (two["metrics"], two["counts"])
    assert 0.3 < one["scores"]["all"]["PQ"] < 1.0
    assert agree(one["scores"], official(world, tmp_path / "one" / NAME))
    here, there = (tmp_path / name / NAME for name in ("one", "two"))
    assert predicted(here / "predictions.jsonl") == predicted(there / "predictions.jsonl")
    assert (here / "panoptic.json").read_bytes() == (there / "panoptic.json").read_bytes()
    pngs = sorted(path.name for path in (tmp_path / "one" / NAME / "panoptic").iterdir())
    assert pngs == [f"{number:012d}.png" for number in range(1, 9)]


def test_a_segmenter_of_all_classes_is_measured_on_the_annotated_ones(world: Path, tmp_path: Path) -> None:
    folder = save_tiny_xdecoder(tmp_path / "xdecoder")
    more: tuple[object, ...] = ("SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", folder, "SEGMENTER.THRESHOLD", 0.02)
    more += ("SEGMENTER.MASK_THRESHOLD", 0.02, "SEGMENTER.SHORT_SIDE", 32)
    assert main(settings(world, tmp_path / "out", None, *more)) == 0
    found = results(tmp_path / "out")
    assert found["scores"]["all"]["unlisted_segments"] > 0
    assert agree(found["scores"], official(world, tmp_path / "out" / NAME))


def test_broken_images_and_maps_are_named_counted_and_tried_again(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(world / "coco", data / "coco")
    maps = world / "coco_panoptic/panoptic_spoiled"
    kept = (data / "coco/val2017/000000000002.jpg").read_bytes()
    (data / "coco/val2017/000000000002.jpg").write_bytes(kept[:300])
    pngs = data / "coco/annotations/panoptic_val2017"
    (pngs / "000000000003.png").write_bytes(b"no image")
    Image.new("RGB", (5, 6)).save(pngs / "000000000004.png")
    (pngs / "000000000005.png").unlink()
    assert main(["validate", NAME, "--overrides", "DATASETS.ROOT", str(data)]) == 1
    assert "image 000000000005.jpg: its map is missing" in capsys.readouterr().out
    assert main(settings(data, tmp_path / "out", maps)) == 0
    found = results(tmp_path / "out")
    assert (found["counts"]["answered"], found["counts"]["errors"], found["counts"]["bad_records"]) == (4, 3, 1)
    reasons = [error["reason"] for error in found["errors"]]
    assert "image 000000000002.jpg: damaged" in reasons[0]
    assert "image 000000000003.jpg: its ground-truth map" in reasons[1]
    assert "000000000004.jpg: 72 x 72 pixels, but its map" in reasons[2]
    assert "only 4 of 8 records have an answer" in capsys.readouterr().err
    assert agree(found["scores"], official(data, tmp_path / "out" / NAME))
    (data / "coco/val2017/000000000002.jpg").write_bytes(kept)
    assert main(settings(data, tmp_path / "out", maps)) == 0
    assert (results(tmp_path / "out")["counts"]["answered"], results(tmp_path / "out")["answered_this_session"]) == (
        5,
        3,
    )


def test_a_checkpoint_is_needed_only_where_a_model_is_asked(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["eval", "--check", "--overrides", "DATASETS.TEST", f"{NAME},pope_test", "DATASETS.ROOT", str(world)]
    assert main(both) == 2
    assert "RESUME_FROM: set it" in capsys.readouterr().err
    none = ["SEGMENTER.NAME", "none"]
    assert main(["eval", "--check", "--overrides", "DATASETS.TEST", NAME, "DATASETS.ROOT", str(world), *none]) == 0
    assert main(["list"]) == 0
    assert f"{NAME}: the segmenter's maps; needs no MODEL.PATH, and is not part of all" in capsys.readouterr().out
