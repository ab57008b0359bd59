"""Maps are made once: by ``maps`` ahead of a run, by the first of two benchmarks, by one of several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets.tiny.random_checkpoint import make_tiny
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap
from modeling.segmenters.mask2former import Mask2FormerSegmenter
from pipeline.commands.cli import main
from tests.limits import free_port
from tests.predicted import predicted
from tests.unit.segmenters.tiny_mask2former import save_tiny_mask2former
from tests.warm import run_warm
from trainer.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
NUM = 7
YAML = """
name: {name}
data:
  file: {name}.jsonl
  images: {name}
  columns: {{id: nr, question: ask, image: photo, answer: truth}}
  answer: yes_no
prompt: "{{question}}"
generate: {{num_beams: 1, max_new_tokens: 2}}
scorer: yes_no
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two benchmarks on the same pixels under other names, and two checkpoints."""
    root = tmp_path_factory.mktemp("maps")
    make_tiny(root / "model", seed=0)
    save_tiny_mask2former(root / "mask2former")
    rng = np.random.default_rng(5)
    for name in ("zoo", "park"):
        (root / name).mkdir()
        (root / f"{name}.yaml").write_text(YAML.format(name=name))
    rows: dict[str, list[dict[str, str]]] = {"zoo": [], "park": []}
    for number in range(NUM):
        image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
        for name, file in (("zoo", f"{number}.png"), ("park", f"p{number}.bmp")):
            image.save(root / name / file)
            rows[name] += [
                {"nr": f"{number}-{q}", "ask": f"Is there a {q}?", "photo": file, "truth": "yes"}
                for q in ("dog", "cat")
            ]
    for name, lines in rows.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return root


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the images that the network sees."""
    names: list[str] = []
    original = Mask2FormerSegmenter.segment

    def noted(self: Any, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        names.extend(image.name for image in images)
        return original(self, images, size)

    monkeypatch.setattr(Mask2FormerSegmenter, "segment", noted)
    yield names


def options(world: Path, cache: Path | str, *more: object) -> list[str]:
    files = [str(world / f"{name}.yaml") for name in ("zoo", "park")]
    settings = {
        "DATASETS.ROOT": world,
        "RESUME_FROM": world / "model",
        "LLM.BITS": 32,
        "LLM.DTYPE": "fp32",
        "SEGMENTER.NAME": "mask2former",
        "SEGMENTER.PATH": world / "mask2former",
        "SEGMENTER.THRESHOLD": 0.02,
        "SEGMENTER.MASK_THRESHOLD": 0.02,
        "SEGMENTER.CACHE": cache,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    return ["--conf_files", *files, "--overrides", *words, *map(str, more)]


def evaluate(world: Path, cache: Path | str, name: str, save: Path) -> list[dict[str, Any]]:
    given = options(world, cache, "DATASETS.TEST", name, "SAVE_DIR", save, "EVAL.ON_CHANGE", "restart")
    assert main(["eval", *given]) == 0
    return predicted(save / name / "predictions.jsonl")


def test_a_second_benchmark_on_the_same_images_segments_nothing(
    world: Path, tmp_path: Path, segmented: list[str]
) -> None:
    without = evaluate(world, "off", "zoo", tmp_path / "off")
    assert len(segmented) == NUM
    segmented.clear()
    first = evaluate(world, tmp_path / "cache", "zoo", tmp_path / "first")
    assert sorted(segmented) == [f"{n}.png" for n in range(NUM)]
    segmented.clear()
    again = evaluate(world, tmp_path / "cache", "zoo", tmp_path / "again")
    other = evaluate(world, tmp_path / "cache", "park", tmp_path / "other")
    assert segmented == []
    keys = ("id", "prompt", "reply") if "reply" in first[0] else ("id", "prompt", "text")
    shown = [[tuple(row[key] for key in keys) for row in run] for run in (without, first, again, other)]
    assert shown[0] == shown[1] == shown[2] == shown[3]
    assert any("[0." in row["prompt"] for row in first), "prompts without objects prove little"


def test_maps_are_made_ahead_found_again_and_counted(
    world: Path, tmp_path: Path, segmented: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(world, tmp_path / "cache")
    assert main(["maps", "zoo", *given]) == 0
    assert f"maps: {NUM} made, 0 found, 0 images without one; {tmp_path / 'cache'}" in capsys.readouterr().out
    assert len(segmented) == NUM
    assert main(["maps", "zoo", "park", *given]) == 0
    assert f"maps: 0 made, {2 * NUM} found, 0 images without one" in capsys.readouterr().out
    evaluate(world, tmp_path / "cache", "park", tmp_path / "save")
    assert len(segmented) == NUM


@pytest.mark.parametrize("name", ["hf", "endpoint"])
def test_maps_need_no_checkpoint_of_collavo(
    world: Path, tmp_path: Path, segmented: list[str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """What answers is another model, whose path is no directory of CoLLaVO, or is not there at all."""
    given = options(world, tmp_path / "cache", "RESUME_FROM", "", "MODEL.NAME", name, "MODEL.PATH", tmp_path / "none")
    assert main(["maps", "zoo", *given, "EVAL.LIMIT", "2"]) == 0
    err = capsys.readouterr().err
    assert f"MODEL.NAME {name} asks for no maps, these are for a CoLLaVO: images of 490 pixels" in err
    assert len(segmented) == len(list((tmp_path / "cache").rglob("*.map"))) > 0


def test_images_that_cannot_be_read_are_named_and_the_exit_code_says_so(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (world / "zoo.jsonl", world / "zoo.yaml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "zoo").mkdir()
    for number in range(NUM):
        (tmp_path / "zoo" / f"{number}.png").write_bytes((world / "zoo" / f"{number}.png").read_bytes())
    (tmp_path / "zoo" / "3.png").write_bytes(b"no image at all")
    (tmp_path / "zoo" / "5.png").unlink()
    given = options(world, tmp_path / "cache", "DATASETS.ROOT", tmp_path)
    assert main(["maps", "zoo", *given]) == 1
    out, err = capsys.readouterr()
    assert f"maps: {NUM - 2} made, 0 found, 2 images without one" in out
    assert f"2 of {NUM} images have no map" in err and "image 3.png:" in err and "image 5.png:" in err


def test_mistakes_are_said_before_anything_is_loaded(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for names, more, message in (
        (["zoo"], ["SEGMENTER.CACHE", "off"], "SEGMENTER.CACHE off: there is no cache to fill"),
        (["zoo"], ["SEGMENTER.NAME", "none"], "SEGMENTER.NAME none: its maps need no cache"),
        (["zoo"], ["SEGMENTER.CACHE", tmp_path / "file"], "SEGMENTER.CACHE: "),
        (["zoo"], ["SEGMENTER.CACHE_SIZE", "0"], "SEGMENTER.CACHE_SIZE: must be above 0"),
        (["zo"], [], "there is no 'zo'; did you mean zoo"),
        (["zoo"], ["RESUME_FROM", world / "mask2former"], "'class_predictor.bias' is no parameter of CoLLaVO"),
        (["zoo", "train"], ["TRAIN.STAGE", "cpt"], "TRAIN.STAGE cpt learns from maps that lie next to its images"),
        (["train"], ["DATA.MAPS_CACHE", "elsewhere"], "DATA.MAPS_CACHE 'elsewhere' is another name of"),
    ):
        assert main(["maps", *names, *options(world, tmp_path / "cache", *more)], COMMANDS) == 2
        assert message in capsys.readouterr().err


def test_images_of_training_are_filled_by_its_own_configuration(
    world: Path, tmp_path: Path, segmented: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And training's other name of the folder is the same cache, which an evaluation has filled."""
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]
    records = [{"id": str(n), "image": f"{n}.png", "conversations": turns} for n in range(NUM)]
    (tmp_path / "chat.json").write_text(json.dumps(records))
    evaluate(world, tmp_path / "cache", "park", tmp_path / "save")
    segmented.clear()
    given = options(world, "", "TRAIN.STAGE", "cit", "TRAIN.ADAPTERS", "vl_only")
    given += ["DATA.MAPS_CACHE", str(tmp_path / "cache")]
    given += ["DATA.CONVERSATIONS", json.dumps([{"FILE": str(tmp_path / "chat.json"), "IMAGES": str(world / "zoo")}])]
    assert main(["maps", "train", *given], COMMANDS) == 0
    assert f"maps: 0 made, {NUM} found" in capsys.readouterr().out and segmented == []


def test_two_processes_fill_it_together(world: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]
    command = [*launcher, f"--master_port={free_port()}", "lbk_entry.py", "maps", "zoo"]
    done = run_warm([*command, *options(world, tmp_path / "cache")])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("maps: ") == 1 and f"maps: {NUM} made, 0 found, 0 images without one" in done.stdout
    assert len(list((tmp_path / "cache").rglob("*.map"))) == NUM
