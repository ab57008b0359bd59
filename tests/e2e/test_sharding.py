"""Training in shards on two processes: the same losses, files and frozen adapter as in one process.

Accelerate shards on accelerators alone, so that the launch files run in the tests marked ``gpu``; all else of FSDP2 and
ZeRO runs here on the CPU (see sharded.py).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from collavo.checkpoint.finetuned_checkpoint import read_state
from tests.e2e.build_deepspeed import lacking
from tests.e2e.test_pope_processes import ROOT
from tests.e2e.test_training import adapters, losses, train
from tests.limits import LIMIT, free_port
from tests.tiny_training import STEP, settings
from tests.warm import run_warm

ZERO = pytest.mark.skipif(bool(lacking()), reason=f"ZeRO needs DeepSpeed and a compiler: {lacking()}")
KINDS = ["fsdp2", pytest.param("zero2", marks=ZERO), pytest.param("zero3", marks=ZERO)]
STEPS = 8
HELD_OUT = ("DATA.VALIDATION", 0.2, "TRAIN.VALIDATE_EVERY", 4)


def words(tiny: Path) -> tuple[object, ...]:
    """Shares of unequal size, rows without image, and a decay that would move a set whose gradient is zero."""
    data, file = tiny / "data", tiny / "data" / "LLaVA" / "with_texts.json"
    entries = json.loads((tiny / "data" / "LLaVA" / "tiny_instruct.json").read_text())
    talk = [{"from": "human", "value": "Is the sky blue?"}, {"from": "gpt", "value": "It is, on most days."}]
    entries += [{"id": f"text{number}", "conversations": talk} for number in range(len(entries))]
    file.write_text(json.dumps(entries))
    return (
        *("TRAIN.STAGE", "cit", "TRAIN.STEPS", STEPS, "TRAIN.SAVE_EVERY", 1, "TRAIN.KEEP", 99),
        *("TRAIN.BATCH_SIZE_TOTAL", 5, "TRAIN.BATCH_SIZE", 1, "TRAIN.WEIGHT_DECAY", 0.1),
        *("DATA.CONVERSATIONS", f"[{{FILE: {file}, IMAGES: {data}}}]"),
    )


def sharded(kind: str, tiny: Path, save: Path, *more: object) -> str:
    launcher = ["-m", "accelerate.commands.launch", "--config_file", "configs/accel/cpu_accel.yaml"]
    launcher += ["--num_processes", "2", "--main_process_port", str(free_port()), "-m", "tests.e2e.sharded", kind]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    done = run_warm([*launcher, *settings(tiny, save, *more)], env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def one(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = tmp_path_factory.mktemp("one")
    (save / "said.txt").write_text(train(1, tiny, save, *words(tiny), *HELD_OUT))
    return save


@pytest.fixture(scope="module", params=KINDS)
def shards(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    save = tmp_path_factory.mktemp(request.param)
    (save / "said.txt").write_text(sharded(request.param, tiny, save, *words(tiny), *HELD_OUT))
    return request.param, save


def test_all_that_is_trained_is_counted(one: Path, shards: tuple[str, Path]) -> None:
    """ZeRO-3 leaves a process no numbers but those of its shards."""
    said = [(save / "said.txt").read_text() for save in (one, shards[1])]
    lines = [next(line for line in text.splitlines() if "million parameters are trained" in line) for text in said]
    assert lines[0].split(";")[0] == lines[1].split(";")[0] and "0.00 of" not in lines[0]


def test_the_held_out_loss_is_that_of_one_process(one: Path, shards: tuple[str, Path]) -> None:
    kept = [json.loads((save / "validation.json").read_text())["validations"] for save in (one, shards[1])]
    assert [v["step"] for v in kept[0]] == [v["step"] for v in kept[1]]
    assert [v["labels"] for v in kept[0]] == [v["labels"] for v in kept[1]]
    for ours, theirs in zip(*kept, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-4)
        assert theirs["sources"] == pytest.approx(ours["sources"], abs=1e-4)


def test_the_losses_are_those_of_one_process(one: Path, shards: tuple[str, Path]) -> None:
    assert losses(shards[1]) == pytest.approx(losses(one), abs=1e-4)


def test_checkpoints_are_whole_and_the_same_files(one: Path, shards: tuple[str, Path]) -> None:
    mine, other = (save / STEP.format(STEPS) for save in (shards[1], one))
    files = sorted(str(path.relative_to(other)) for path in other.rglob("*.safetensors"))
    assert sorted(str(path.relative_to(mine)) for path in mine.rglob("*.safetensors")) == files
    for file in files:
        if file == "random.safetensors":
            continue
        ours, theirs = load_file(mine / file), load_file(other / file)
        assert ours.keys() == theirs.keys(), file
        for name, tensor in theirs.items():
            # AdamW's first steps are about as large for tiny gradients as for others: rounding shows up there
            assert ours[name].shape == tensor.shape and ours[name].dtype == tensor.dtype, name
            assert (ours[name] - tensor).abs().mean() < 1e-5 + 1e-3 * tensor.abs().mean(), (file, name)
    assert read_state(mine) == read_state(other)


def test_the_frozen_adapter_keeps_every_bit(shards: tuple[str, Path]) -> None:
    save = shards[1]
    found = adapters(save, STEPS)
    assert set(found) == {"image_cit", "vl_cit"}
    for step, adapter in enumerate(found, start=2):
        before, after = (load_file(save / STEP.format(n) / "optimizer.safetensors") for n in (step - 1, step))
        frozen = {"image_cit": "vl_cit", "vl_cit": "image_cit"}[adapter]
        held = [key for key in before if f".{frozen}." in key]
        assert all(torch.equal(before[key], after[key]) for key in held), step


def without_later_half(save: Path, copy: Path) -> Path:
    shutil.copytree(save, copy)
    for step in range(STEPS // 2 + 1, STEPS + 1):
        shutil.rmtree(copy / STEP.format(step))
    return copy


def test_one_process_goes_on_from_shards_and_shards_from_one(
    one: Path, shards: tuple[str, Path], tiny: Path, tmp_path: Path
) -> None:
    kind, save = shards
    alone = without_later_half(save, tmp_path / "alone")
    train(1, tiny, alone, *words(tiny), *HELD_OUT, "RESUME", True)
    assert losses(alone) == pytest.approx(losses(one), abs=1e-4)
    again = without_later_half(one, tmp_path / "again")
    sharded(kind, tiny, again, *words(tiny), *HELD_OUT, "RESUME", True)
    assert losses(again) == pytest.approx(losses(one), abs=1e-4)


Quantised = Callable[[int], Path]


@pytest.fixture(scope="module")
def quantised(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    """A short training run on one process by the bits of its weights, each made once."""

    @functools.cache
    def made(bits: int) -> Path:
        save = tmp_path_factory.mktemp(f"bits-{bits}")
        train(1, tiny, save, *of_bits(tiny, bits))
        return save

    return made


def of_bits(tiny: Path, bits: int) -> tuple[object, ...]:
    return (*words(tiny), "LLM.BITS", bits, "LLM.DTYPE", "bf16", "TRAIN.STEPS", 3)


@pytest.mark.parametrize(
    ("kind", "bits"), [("fsdp2", 4), pytest.param("zero2", 4, marks=ZERO), pytest.param("zero3", 16, marks=ZERO)]
)
def test_4_bit_and_bf16_weights(kind: str, bits: int, quantised: Quantised, tiny: Path, tmp_path: Path) -> None:
    """bf16 rounds at 4e-3 of a loss of about 8; adding microbatches up in another order shows at that size."""
    sharded(kind, tiny, tmp_path / kind, *of_bits(tiny, bits))
    assert losses(tmp_path / kind) == pytest.approx(losses(quantised(bits)), abs=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="Accelerate shards on accelerators alone; there is no GPU")
@pytest.mark.parametrize(
    ("file", "bits"),
    [
        ("fsdp2", 4),
        pytest.param("deepspeed_zero2", 4, marks=ZERO),
        pytest.param("deepspeed_zero3", 16, marks=ZERO),
    ],
)
def test_the_launch_files_on_every_gpu_there_is(file: str, bits: int, tiny: Path, tmp_path: Path) -> None:
    more = (*words(tiny), "LLM.BITS", bits, "LLM.DTYPE", "bf16", "TRAIN.BATCH_SIZE_TOTAL", 16)
    command = ["-m", "accelerate.commands.launch", "--config_file", f"configs/accel/{file}_accel.yaml"]
    command += ["--num_processes", str(torch.cuda.device_count()), "--main_process_port", str(free_port())]
    command += ["lbk_entry.py", "train", "--conf_files", "configs/collavo_tiny_train.yaml", "--overrides"]
    command += settings(tiny, tmp_path, *more)
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(tmp_path)) == STEPS and set(adapters(tmp_path, STEPS)) == {"image_cit", "vl_cit"}
