"""Training through the entry: trainable and frozen parameters, resuming after a kill, processes, evaluation."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e.test_pope_processes import ROOT
from tests.limits import LIMIT, free_port
from tests.predicted import predicted
from tests.tiny_training import STEP, settings
from tests.warm import WarmProcess, run_warm, start_warm

CONFIG = "configs/collavo_tiny_train.yaml"
GIVEN = ("--conf_files", CONFIG, "--overrides")
KILLED = f"""import sys
from tests.e2e.killed import die_after
from trainer.config import read_training
from trainer.run import train
die_after(updates=3, seconds=0.0)
train(*read_training(["{CONFIG}"], sys.argv[1:]))
"""


def start(
    num: int,
    tiny: Path,
    save: Path,
    *more: object,
    command: str = "train",
    float64: bool = False,
    node: int | None = None,
    port: int | None = None,
) -> WarmProcess:
    """Start a launcher; ``node`` makes it one of two machines, which meet at a port of loopback."""
    file = "cpu_accel.yaml" if node is None else "multi_node_accel.yaml"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", f"configs/accel/{file}"]
    launcher += ["--num_processes", str(num), "--main_process_port", str(port or free_port())]
    launcher += [] if node is None else ["--machine_rank", str(node), "--main_process_ip", "127.0.0.1"]
    launcher += ["-m", "tests.e2e.float64", CONFIG] if float64 else ["lbk_entry.py", command, *GIVEN]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = settings(tiny, save, *more)
    return start_warm([*launcher, *words], env)


def train(num: int, tiny: Path, save: Path, *more: object, float64: bool = False) -> str:
    """Train, on one process without a launcher; what was written."""
    if num == 1:
        entry = ["-m", "tests.e2e.float64", CONFIG] if float64 else ["lbk_entry.py", "train", *GIVEN]
        done = run_warm([*entry, *settings(tiny, save, *more)])
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr
    process = start(num, tiny, save, *more, float64=float64)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err[-3000:]
    return out + err


def losses(save: Path) -> list[float]:
    written: list[dict[str, Any]] = [json.loads(line) for line in (save / "log.jsonl").read_text().splitlines()]
    rows = [row for row in written if "loss" in row]  # others are of held-out losses
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


CIT = ("TRAIN.STAGE", "cit", "TRAIN.STEPS", 10, "TRAIN.SAVE_EVERY", 1, "TRAIN.KEEP", 99)


@pytest.fixture(scope="module")
def straight(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten updates of Dual QLoRA in one go, every one of them kept."""
    save = tmp_path_factory.mktemp("straight")
    train(1, tiny, save, *CIT)
    return save


def adapters(save: Path, steps: int) -> list[str]:
    """Which set each update trained, by which of the two moved."""
    found = []
    for step in range(2, steps + 1):
        before, after = (save / STEP.format(n) for n in (step - 1, step))
        files = {name: f"{name}/adapter_model.safetensors" for name in ("image_cit", "vl_cit")}
        moved = [n for n, f in files.items() if (before / f).read_bytes() != (after / f).read_bytes()]
        assert len(moved) == 1, (step, moved)
        found += moved
    return found


def test_each_update_moves_one_set_and_leaves_the_other_bit_for_bit(straight: Path) -> None:
    found = adapters(straight, 10)
    assert set(found) == {"image_cit", "vl_cit"}
    for step, adapter in enumerate(found, start=2):
        before, after = (load_file(straight / STEP.format(n) / "optimizer.safetensors") for n in (step - 1, step))
        frozen = {"image_cit": "vl_cit", "vl_cit": "image_cit"}[adapter]
        at_rest = [key for key in before if f".{frozen}." in key]
        assert all(torch.equal(before[key], after[key]) for key in at_rest), step
        crayon = (load_file(straight / STEP.format(n) / "crayon.safetensors") for n in (step - 1, step))
        assert not all(torch.equal(a, b) for a, b in zip(*(c.values() for c in crayon), strict=True))


def test_going_on_after_a_kill_is_bit_for_bit_the_same(straight: Path, tiny: Path, tmp_path: Path) -> None:
    program = tmp_path.with_suffix(".py")
    program.write_text(KILLED)
    done = run_warm([str(program), *settings(tiny, tmp_path, *CIT)])
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert (tmp_path / STEP.format(3)).exists() and not (tmp_path / STEP.format(4)).exists()
    refused = start(1, tiny, tmp_path, *CIT)
    assert "RESUME True goes on from there" in refused.communicate(timeout=LIMIT)[1]
    assert refused.returncode == 1
    train(1, tiny, tmp_path, *CIT, "RESUME", True)
    last = STEP.format(10)
    for file in ("crayon.safetensors", "optimizer.safetensors", "random.safetensors"):
        assert (tmp_path / last / file).read_bytes() == (straight / last / file).read_bytes(), file
    for name in ("image_cit", "vl_cit"):
        file = f"{last}/{name}/adapter_model.safetensors"
        assert (tmp_path / file).read_bytes() == (straight / file).read_bytes(), name
    assert losses(tmp_path) == losses(straight)


def test_two_processes_and_other_microbatches_learn_the_same(tiny: Path, tmp_path: Path) -> None:
    """In float64, where 20 updates still agree to 1e-14."""
    more = ("TRAIN.STAGE", "cit", "TRAIN.STEPS", 20)
    train(1, tiny, tmp_path / "one", *more, "TRAIN.BATCH_SIZE", 8, float64=True)
    train(2, tiny, tmp_path / "two", *more, "TRAIN.BATCH_SIZE", 1, float64=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-10)


def test_two_machines_learn_the_same(straight: Path, tiny: Path, tmp_path: Path) -> None:
    """In float32: ten updates of this model differ by 2e-6 whatever the processor, nothing in it compares numbers."""
    port = free_port()
    nodes = [start(2, tiny, tmp_path / "nodes", *CIT, node=node, port=port) for node in (0, 1)]
    errors = [node.communicate(timeout=LIMIT)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors[0][-2000:]
    assert losses(tmp_path / "nodes") == pytest.approx(losses(straight), abs=1e-4)


def test_another_number_of_processes_goes_on(straight: Path, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "on")
    for step in range(6, 11):
        shutil.rmtree(tmp_path / "on" / STEP.format(step))
    train(2, tiny, tmp_path / "on", *CIT, "RESUME", True)
    assert losses(tmp_path / "on") == pytest.approx(losses(straight), abs=1e-4)


def test_step_two_starts_from_step_one_and_evaluates_on_the_way(tiny: Path, tmp_path: Path) -> None:
    train(1, tiny, tmp_path / "cpt", "TRAIN.STEPS", 2)
    one = tmp_path / "cpt" / STEP.format(2)
    evaluated = ("DATASETS.TEST", "pope_test", "EVAL.LIMIT", 8, "POPE.TEST.BATCH_SIZE_TOTAL", 8)
    more = ("TRAIN.STAGE", "cit", "TRAIN.STEPS", 2, "TRAIN.EVAL_EVERY", 1, "RESUME_FROM", one, *evaluated)
    train(1, tiny, tmp_path / "cit", *more)
    two = tmp_path / "cit" / STEP.format(2)
    assert json.loads((two / "state.json").read_text())["started_from"] == str(tiny / "checkpoint")
    hooked = tmp_path / "cit" / "eval" / "step-00000002" / "pope_test" / "predictions.jsonl"
    process = start(1, tiny, tmp_path / "eval", "RESUME_FROM", two, *evaluated, command="eval")
    # the files of training serve evaluation too, but on the command line its keys are none of evaluation's
    assert "unknown key" in process.communicate(timeout=LIMIT)[1]
    words = ["lbk_entry.py", "eval", *GIVEN]
    given = settings(tiny, tmp_path / "eval", "RESUME_FROM", two, *evaluated)
    kept = [w for k, v in zip(given[::2], given[1::2], strict=True) if k.split(".")[0] not in ("DATA", "LORA", "TRAIN")
            for w in (k, v)]  # fmt: skip
    done = run_warm([*words, *kept])
    assert done.returncode == 0, done.stderr[-2000:]
    assert predicted(tmp_path / "eval" / "pope_test" / "predictions.jsonl") == predicted(hooked)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("TRAIN.CRAYON", "none"), "leaves nothing to train"),
        (("DATA.PANOPTIC.ANNOTATIONS", "nowhere.json"), "nowhere.json"),
        (("LLM.DTYPE", "fp16", "LLM.BITS", "16"), "cannot be trained in"),
        (("RESUME_FROM", "nowhere"), "RESUME_FROM: nowhere does not exist"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(
    tiny: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    words = [sys.executable, "lbk_entry.py", "train", *GIVEN]
    words += settings(tiny, tmp_path, *more)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_batch_smaller_than_the_processes_is_refused(tiny: Path, tmp_path: Path) -> None:
    process = start(2, tiny, tmp_path, "TRAIN.BATCH_SIZE_TOTAL", 1)
    assert "TRAIN.BATCH_SIZE_TOTAL 1 is less than 2 processes" in process.communicate(timeout=LIMIT)[1]
    assert process.returncode != 0


def test_samples_that_cannot_be_read_are_skipped_and_said(tiny: Path, tmp_path: Path) -> None:
    """An image that is damaged, an answer that holds a tag, a record without answer, an image that is not there."""
    shutil.copytree(tiny / "data", tmp_path / "data")
    (tmp_path / "data" / "coco" / "val2017" / "000000000002.jpg").write_bytes(b"no image")
    file = tmp_path / "data" / "LLaVA" / "tiny_instruct.json"
    entries = json.loads(file.read_text())
    entries[0]["conversations"][1]["value"] = "[UNUSED_TOKEN_145] yes"
    entries[3]["image"] = "coco/val2017/gone.jpg"
    entries[4]["conversations"] = entries[4]["conversations"][:1]
    file.write_text(json.dumps(entries))
    root = tmp_path / "data"
    said = train(
        *(2, tiny, tmp_path / "out", "TRAIN.STAGE", "cit", "TRAIN.ADAPTERS", "vl_only", "TRAIN.STEPS", 3),
        *("DATASETS.ROOT", root, "DATA.CONVERSATIONS", f"[{{FILE: {file}, IMAGES: {root}}}]"),
    )
    assert "11 samples; 1 malformed records skipped; 1 skipped, their images are missing" in said
    assert "gone.jpg" in said
    assert "a sample is skipped: tiny_instruct: image coco/val2017/000000000002.jpg" in said
    assert "a text holds one of [UNUSED_TOKEN_146]" in said
    assert len(losses(tmp_path / "out")) == 3


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tiny: Path, tmp_path: Path) -> None:
    train(1, tiny, tmp_path / "out", "TRAIN.STEPS", 4, "TRAIN.SAVE_EVERY", 2, "TRAIN.KEEP", 9)
    shutil.rmtree(tmp_path / "out" / STEP.format(4))
    kept = tmp_path / "out" / STEP.format(2)
    tensors = load_file(kept / "crayon.safetensors")
    tensors["crayon.projector.2.bias"].fill_(3e38)  # a number, but nothing that is computed with it is one
    save_file(tensors, kept / "crayon.safetensors")
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    process = start(1, tiny, tmp_path / "out", "TRAIN.STEPS", 4, "TRAIN.SAVE_EVERY", 2, "TRAIN.KEEP", 9, "RESUME", True)
    said = process.communicate(timeout=LIMIT)[1]
    assert process.returncode != 0
    assert "the loss of update 3 is nan" in said
    assert re.search(r"The samples were panoptic: 0000000000\d\d\.jpg@0-2-\d+", said)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert not (tmp_path / "out" / STEP.format(4)).exists()
