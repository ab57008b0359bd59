"""POPE in its release format, through the entry and a real launcher: one result, whatever the processes and kills."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.limits import LIMIT, free_port, kill, wait_for
from tests.predicted import predicted
from tests.warm import WarmProcess, start_warm

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("random", "popular", "adversarial")
OBJECTS = ("dog", "snowboard", "traffic light", "cup", "person", "pizza", "boat", "tie")
NUM_IMAGES, PER_LIST = 5, 14


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with three lists about the same images; the lists share some questions."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(7)
    images = [f"COCO_val2014_{number:012d}.jpg" for number in range(NUM_IMAGES)]
    (root / "coco2014" / "val2014").mkdir(parents=True)
    (root / "POPE").mkdir()
    for name in images:
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((120, 90)).save(root / "coco2014" / "val2014" / name, quality=95)
    for split in SPLITS:
        records = [
            {
                "question_id": number + 1,
                "image": images[number % NUM_IMAGES],
                "text": f"Is there a {OBJECTS[int(rng.integers(len(OBJECTS)))]} in the image?",
                "label": "yes" if number % 2 == 0 else "no",
            }
            for number in range(PER_LIST)
        ]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (root / "POPE" / f"coco_pope_{split}.json").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from assets.tiny.random_checkpoint import make_tiny

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_tiny(folder, seed=1)
    return folder


def launch(num: int, data: Path, checkpoint: Path, save: Path, *overrides: object) -> WarmProcess:
    """Start the entry under torchrun."""
    port = free_port()
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={num}", "--master_addr=127.0.0.1"]
    settings: dict[str, object] = {
        "PIPELINE": "POPEPipeline",
        "DATASETS.TEST": "pope_test",
        "DATASETS.ROOT": data,
        "RESUME_FROM": checkpoint,
        "SAVE_DIR": save,
        "LLM.BITS": 32,
        "LLM.DTYPE": "fp32",
        "SEGMENTER.NAME": "none",
        "POPE.TEST.BATCH_SIZE_TOTAL": 4,
        "MODEL.NAME": "collavo",
    }
    pairs = [str(part) for pair in settings.items() for part in pair] + [str(part) for part in overrides]
    command = [*launcher, f"--master_port={port}", "lbk_entry.py", "eval"]
    return start_warm([*command, "--conf_files", "configs/vl_test.yaml", "--overrides", *pairs])


def finish(process: WarmProcess, timeout: float = LIMIT) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        pytest.fail(f"still running after {timeout} s:\n{process.communicate()[1][-3000:]}")
    assert process.returncode is not None
    return process.returncode, out, err


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def alone(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of one process, one question at a time."""
    save = tmp_path_factory.mktemp("alone")
    code, out, err = finish(launch(1, data, checkpoint, save, "EVAL.MAX_BATCH", 1))
    assert code == 0, err[-3000:]
    assert "POPE" in out and "predictions.jsonl" in out
    return save / "pope_test"


def confusion(rows: list[tuple[str, str]]) -> dict[str, float]:
    """Accuracy and counts from (text, label), by the words of POPE's own script."""
    said = [
        "no" if {"No", "not", "no"} & set(text.split(".")[0].replace(",", "").split(" ")) else "yes" for text, _ in rows
    ]
    pairs = list(zip(said, (label for _, label in rows), strict=True))
    return {
        "TP": pairs.count(("yes", "yes")),
        "TN": pairs.count(("no", "no")),
        "FP": pairs.count(("yes", "no")),
        "FN": pairs.count(("no", "yes")),
        "accuracy": sum(one == other for one, other in pairs) / len(pairs),
    }


def test_scores_are_what_popes_script_makes_of_the_predictions(data: Path, alone: Path) -> None:
    texts = [row["text"] for row in lines(alone / "predictions.jsonl")]
    assert len(texts) == len(SPLITS) * PER_LIST and len(set(texts)) > 1
    found = json.loads((alone / "results.json").read_text())
    for index, split in enumerate(SPLITS):
        labels = [row["label"] for row in lines(data / "POPE" / f"coco_pope_{split}.json")]
        wanted = confusion(list(zip(texts[index * PER_LIST : (index + 1) * PER_LIST], labels, strict=True)))
        assert {name: found["scores"][split][name] for name in wanted} == pytest.approx(wanted)
    assert found["counts"]["records"] == len(texts) and found["expected"][0]["published"] == 87.2


def margins(folder: Path) -> dict[tuple[str, str], float]:
    """How close each decision was, of all processes."""
    rows = [row for file in sorted((folder / "journal").glob("*.jsonl")) for row in lines(file)]
    assert all(row["margin"] is not None for row in rows)
    return {(row["image"], row["question"]): row["margin"] for row in rows}


@pytest.mark.parametrize(("num", "size"), [(2, 3), (3, 7)])
def test_processes_do_not_matter(
    num: int, size: int, data: Path, checkpoint: Path, alone: Path, tmp_path: Path
) -> None:
    code, _, err = finish(launch(num, data, checkpoint, tmp_path, "EVAL.MAX_BATCH", size))
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "pope_test/predictions.jsonl") == predicted(alone / "predictions.jsonl")
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (alone, tmp_path / "pope_test"))
    assert one["metrics"] == other["metrics"] and one["fingerprint"] == other["fingerprint"]
    assert other["processes"] == num
    assert one["decisions"] == other["decisions"]
    assert one["decisions"]["fixed_order"] and one["decisions"]["of"] > 20
    assert margins(alone) == margins(tmp_path / "pope_test"), "bit for bit"


def test_a_killed_run_goes_on_with_other_processes(data: Path, checkpoint: Path, alone: Path, tmp_path: Path) -> None:
    journal = tmp_path / "pope_test" / "journal"
    process = launch(2, data, checkpoint, tmp_path, "EVAL.MAX_BATCH", 2)
    wait_for(
        lambda: sum(f.read_bytes().count(b"\n") for f in journal.glob("*.jsonl")) >= 6,
        unless=lambda: process.poll() is not None,
    )
    kill(process)
    process.communicate()
    before = sum(len(file.read_bytes().splitlines()) for file in journal.glob("*.jsonl"))
    assert before >= 6
    code, _, err = finish(launch(1, data, checkpoint, tmp_path))
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "pope_test/predictions.jsonl") == predicted(alone / "predictions.jsonl")


def test_other_settings_do_not_continue_a_run(data: Path, checkpoint: Path, alone: Path) -> None:
    before = {file: file.read_bytes() for file in alone.iterdir() if file.is_file()}
    code, _, err = finish(launch(1, data, checkpoint, alone.parent, "POPE.TEST.NUM_BEAMS", 1))
    assert code != 0 and "benchmark.num_beams: 3 -> 1" in err and "EVAL.ON_CHANGE" in err
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT) not in err
    assert {file: file.read_bytes() for file in alone.iterdir() if file.is_file()} == before


def test_broken_images_and_records_are_counted(data: Path, checkpoint: Path, alone: Path, tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    (root / "POPE").mkdir(parents=True)
    (root / "coco2014").mkdir()
    (root / "coco2014" / "val2014").mkdir()
    for image in sorted((data / "coco2014" / "val2014").iterdir()):
        whole = image.read_bytes()
        cut = whole[: len(whole) // 3] if image.name.endswith("1.jpg") else whole
        (root / "coco2014" / "val2014" / image.name).write_bytes(cut)
    for split in SPLITS:
        text = (data / "POPE" / f"coco_pope_{split}.json").read_text(encoding="utf-8")
        text += '{"question_id": 99, "image":\n' if split == "popular" else ""
        (root / "POPE" / f"coco_pope_{split}.json").write_text(text, encoding="utf-8")
    code, _, err = finish(launch(2, root, checkpoint, tmp_path / "run"))
    assert code == 0, err[-3000:]
    found = json.loads((tmp_path / "run/pope_test/results.json").read_text())
    hit = [row["id"] for row in lines(alone / "predictions.jsonl")]
    hit = [name for index, name in enumerate(hit) if index % PER_LIST % NUM_IMAGES == 1]
    assert [error["id"] for error in found["errors"]] == hit
    assert found["counts"]["bad_records"] == 1 and "coco_pope_popular.json" in found["bad_records"][0]["where"]
    rows = {row["id"]: row for row in predicted(tmp_path / "run/pope_test/predictions.jsonl")}
    for row in predicted(alone / "predictions.jsonl"):
        assert rows[row["id"]] == row if row["id"] not in hit else rows[row["id"]]["text"] is None
