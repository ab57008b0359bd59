"""The tiny CoLLaVO: made by its command from nothing, shown, ablated; and the shipped one on scenes it never saw."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from assets.tiny.train.ablation import tables
from assets.tiny.train.scores import COLUMNS
from configs.load import REPOSITORY
from tests.warm import run_warm

SHIPPED = REPOSITORY / "assets" / "tiny"
FEW = ["--scenes", "64", "--lessons", "24", "--vision-steps", "2"]
FEW += ["--look-up-steps", "1", "--language-steps", "1", "--box-steps", "1"]
STEPS = ["--step1", "2", "--step2", "2"]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return run_warm(words)


def evaluation(checkpoint: Path, world: Path, save: Path, names: str, maps: str = "panoptic_val") -> list[str]:
    panoptic = world / "coco_panoptic" / maps
    settings = [("RESUME_FROM", checkpoint), ("SAVE_DIR", save), ("DATASETS.ROOT", world), ("DATASETS.TEST", names)]
    settings += [("SEGMENTER.NAME", "precomputed"), ("SEGMENTER.PATH", f"{panoptic}.json")]
    settings += [("SEGMENTER.IMAGES", panoptic)]
    return ["--conf_files", "configs/collavo_tiny.yaml", "--overrides", *(str(w) for pair in settings for w in pair)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    done = python("-m", "assets.tiny.train", str(folder), *FEW, *STEPS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unseen") / "world"
    assert python("-m", "assets.tiny.world", str(folder), "--seed", "5", "--scenes", "40").returncode == 0
    return folder


def test_a_model_is_made_from_nothing_and_can_be_moved(made: Path, world: Path, tmp_path: Path) -> None:
    shipped = shutil.copytree(made / "shipped", tmp_path / "elsewhere")
    assert sum(file.stat().st_size for file in shipped.rglob("*") if file.is_file()) < 10e6
    words = evaluation(shipped / "collavo", world, tmp_path / "run", "tiny_world")
    done = python("lbk_entry.py", "eval", *words, "EVAL.LIMIT", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run/tiny_world/results.json").read_text())["counts"]["answered"] == 8


def test_what_is_there_is_not_made_again(made: Path, tmp_path: Path) -> None:
    """Not the lessons either: the second run could not draw them anew, since there are none to leave alone."""
    here = shutil.copytree(made, tmp_path / "again")
    shutil.rmtree(here / "lessons")
    before = {file: file.stat().st_mtime_ns for name in ("step1", "step2") for file in (here / name).rglob("*")}
    done = python("-m", "assets.tiny.train", str(here), *FEW, *STEPS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "update" not in done.stdout and "lessons" not in done.stdout and not (here / "lessons").exists()
    assert {file: file.stat().st_mtime_ns for name in ("step1", "step2") for file in (here / name).rglob("*")} == before


def test_an_ablation_prints_its_tables(made: Path, tmp_path: Path) -> None:
    few = ["--lessons", "24", "--scenes", "8", "--step1", "1", "--step2", "2", "--batch", "4", "--seeds", "1"]
    words = ["-m", "assets.tiny.train.ablation", str(tmp_path / "out"), "--base", str(made / "base"), *few]
    done = python(*words, "--rows", "none", "vl_only", "--maps", "true", "corrupted")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Crayon prompt, true maps, 1 seed\n" in done.stdout
    assert "Training, corrupted maps, 1 seed\n" in done.stdout
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert len(scores["true"]["none"]["count"]) == 1
    state = json.loads((tmp_path / "out/vl_only-1/checkpoints/step-00000001/state.json").read_text())
    assert (state["adapters"], state["crayon"]) == (["vl_cit"], "both")  # half of the updates: those on VL data


def test_scores_by_maps_stand_side_by_side(made: Path, tmp_path: Path) -> None:
    words = ["-m", "assets.tiny.train.scores", str(tmp_path), "--checkpoint", str(made / "shipped" / "collavo")]
    done = python(*words, "--scenes", "8", "--maps", "true", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    for maps in ("true", "none"):
        metrics = json.loads((tmp_path / maps / "tiny_world" / "results.json").read_text())["metrics"]
        count = next(m["value"] for m in metrics if (m["group"], m["name"]) == ("kind/count", "accuracy"))
        row = next(line for line in (tmp_path / "scores.md").read_text().splitlines() if line.startswith(f"| {maps}"))
        assert row.split("|")[4].strip() == f"{100 * count:.1f}"
    identities = {
        json.loads((tmp_path / maps / "tiny_world" / "run.json").read_text())["fingerprint"]
        for maps in ("true", "none")
    }
    assert len(identities) == 2


def test_seeds_become_mean_and_spread() -> None:
    figures = {title: [50.0, 52.0, 57.0] for title in COLUMNS}
    text = tables({"true": {"none": figures, "full": figures}}, [0, 1, 2], markdown=True)
    assert "### Crayon prompt, true maps, 3 seeds\n" in text and "### Training, true maps, 3 seeds\n" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows if set(row[1:]) == {"53.0 (3.6)"}] == [
        "no crayon prompt",
        "semantic and numbering",
        "Dual QLoRA",
    ]


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="this clone holds no trained tiny model (assets/tiny)")
@pytest.mark.parametrize(
    ("maps", "existence", "count", "boxes"), [("panoptic_val", 0.95, 0.7, 0.8), ("panoptic_spoiled", 0.9, 0.55, 0.7)]
)
def test_the_shipped_model_sees(
    maps: str, existence: float, count: float, boxes: float, world: Path, tmp_path: Path
) -> None:
    """On scenes of a seed that it never saw; bounds are below the scores in the README by the error of 40 questions."""
    words = evaluation(SHIPPED / "collavo", world, tmp_path / "run", "tiny_world,pope_test,box2class", maps)
    done = python("lbk_entry.py", "eval", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "run/tiny_world/results.json").read_text())["metrics"]
    scores = {m["group"]: m["value"] for m in metrics if m["name"] == "accuracy"}
    chance = {m["group"]: m["value"] for m in metrics if m["name"] == "chance"}
    assert scores["kind/count"] >= count
    assert scores["kind/choice/present"] >= existence
    assert chance["kind/count"] < 0.5
    assert _accuracy(tmp_path / "run" / "pope_test", "mean") >= existence
    assert _accuracy(tmp_path / "run" / "box2class", "") >= boxes


def _accuracy(folder: Path, group: str) -> float:
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    return float(next(m["value"] for m in metrics if (m["group"], m["name"]) == (group, "accuracy")))


def test_images_are_shown_with_map_question_and_reply(made: Path, world: Path, tmp_path: Path) -> None:
    words = evaluation(made / "shipped" / "collavo", world, tmp_path, "tiny_world")
    done = python("lbk_entry.py", "show", *words, "--num", "3", "--out", str(tmp_path / "sheet.png"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("answer: ") == done.stdout.count("model: ") == 3
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
