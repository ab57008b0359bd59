"""Every benchmark in one run, and one that nobody knows, through the entry under ``accelerate launch``."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets.tiny.random_checkpoint import make_tiny
from assets.tiny.world import write_world
from pipeline.catalog import load_catalog
from tests.limits import free_port
from tests.predicted import predicted
from tests.warm import run_warm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and a world."""
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder / "checkpoint", seed=0)
    write_world(folder / "data", seed=0, scenes=4, size=112)
    return folder


def run(num: int, tiny: Path, save: Path, *more: str, files: tuple[str, ...] = ()) -> str:
    """Start the entry with so many processes; returns what it wrote."""
    port = str(free_port())
    panoptic = tiny / "data" / "coco_panoptic" / "panoptic_val"
    command = ["-m", "accelerate.commands.launch", "--config_file", "configs/accel/cpu_accel.yaml"]
    command += ["--num_processes", str(num), "--main_process_port", port, "lbk_entry.py", "eval", "--conf_files"]
    command += ["configs/collavo_tiny.yaml", *files, "--overrides", "SAVE_DIR", str(save), "EVAL.LIMIT", "6"]
    command += ["RESUME_FROM", str(tiny / "checkpoint"), "DATASETS.ROOT", str(tiny / "data")]
    command += ["SEGMENTER.NAME", "precomputed", "SEGMENTER.PATH", f"{panoptic}.json"]
    command += ["SEGMENTER.IMAGES", str(panoptic), *more]
    hidden = ("ACCELERATE_", "OPENAI_", "COLLAVO_JUDGE")
    env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = run_warm(command, env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_all_benchmarks_give_the_same_on_one_and_two_processes(tiny: Path, tmp_path: Path) -> None:
    shown = run(1, tiny, tmp_path / "one")
    run(2, tiny, tmp_path / "two")
    names = [benchmark.dataset for benchmark in load_catalog().select("all")]
    for name in names:
        one, two = (tmp_path / count / name / "predictions.jsonl" for count in ("one", "two"))
        assert predicted(one) == predicted(two), name
        results = json.loads((tmp_path / "one" / name / "results.json").read_text())
        assert (results["counts"]["errors"], results["counts"]["bad_records"]) == (0, 0), name
        assert results["asked"]["rules"] == "official"
    table = (tmp_path / "one" / "summary.csv").read_bytes()
    assert table == (tmp_path / "two" / "summary.csv").read_bytes()
    assert table.decode().startswith(",GQA,SQA-IMG,TextVQA,POPE,MME-P,MME-C,MMBench,MMBench-CN,MM-Vet,Q-Bench,")
    assert "published" not in shown and "difference" not in shown  # the configuration says that it is another model
    assert "random part, records  6 of 20" in shown and "among its lessons" in shown
    # a server takes whole benchmarks
    assert not [*(tmp_path / "one" / "mmbench").glob("*submission*")]
    save = tmp_path / "whole"
    run(1, tiny, save, "DATASETS.TEST", "mmbench,gqa_testdev_balanced", "EVAL.LIMIT", "None", "EVAL.PUBLISHED", "auto")
    assert (save / "mmbench" / "mmbench_submission.xlsx").is_file()
    assert (save / "gqa_testdev_balanced" / "gqa_predictions.json").is_file()
    assert "another model than CoLLaVO-7B by its sizes" in (save / "summary.md").read_text()


ZOO = """\
BENCHMARKS:
  zoo:
    data:
      file: zoo/{split}.jsonl
      splits: [day, night]
      images: zoo/images
      columns: {id: nr, question: ask, image: photo, answer: truth}
      answer: yes_no
    prompt: "{question} Say yes or no."
    generate: {num_beams: 1, max_new_tokens: 4}
    scorer: yes_no
"""
KIT = """\
title: Kit
data: {file: kit.tsv}
prompt: "{question}\\n{options}\\nLetter:"
generate: {max_new_tokens: 4}
scorer: {kind: choice, by: [category]}
"""


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_new_benchmarks_need_yaml_alone(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "zoo"
    (folder / "images").mkdir(parents=True)
    for split in ("day", "night"):
        rows = [{"nr": n, "ask": f"Is animal {n} here?", "photo": f"{n}.png", "truth": n % 2 == 0} for n in range(3)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(png(number))
    cell = base64.b64encode(png(9)).decode()
    table = ["index\tquestion\tA\tB\tanswer\tcategory\timage", f"1\tWhich?\tcat\tdog\tB\tpets\t{cell}"]
    (tmp_path / "data" / "kit.tsv").write_text("\n".join([*table, "2\tWho?\tme\tyou\tA\tpeople\t1"]) + "\n")
    (tmp_path / "zoo.yaml").write_text(ZOO)
    (tmp_path / "kit.yaml").write_text(KIT)
    files = (str(tmp_path / "zoo.yaml"), str(tmp_path / "kit.yaml"))
    settings = ("SEGMENTER.NAME", "none", "DATASETS.TEST", "zoo,kit", "ZOO.TEST.BATCH_SIZE_TOTAL", "2")
    run(2, tiny, tmp_path / "out", *settings, "DATASETS.ROOT", str(tmp_path / "data"), files=files)
    zoo = json.loads((tmp_path / "out" / "zoo" / "results.json").read_text())
    assert set(zoo["scores"]) == {"mean", "day", "night"}
    assert zoo["counts"]["answered"] == 6
    lines = (tmp_path / "out" / "zoo" / "predictions.jsonl").read_text().splitlines()
    asked: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert asked[0]["id"] == "day/0"
    assert "Is animal 0 here? Say yes or no." in asked[0]["prompt"]
    kit = json.loads((tmp_path / "out" / "kit" / "results.json").read_text())
    assert set(kit["scores"]) == {"all", "category/people", "category/pets"}
    assert (tmp_path / "out" / "summary.csv").read_text().startswith(",zoo,Kit\n")
