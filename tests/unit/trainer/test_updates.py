"""Whole stages in this process: what an update moves, against a plain PyTorch loop; what goes on, and what may not."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import trainer.run
from configs.load import REPOSITORY
from pipeline.run.plan import make_session
from pipeline.runtime.errors import RunError
from pipeline.runtime.session import AgreedError
from tests.tiny_training import STEP, settings
from trainer.check import evaluation_plan
from trainer.config import TrainConfig, read_training
from trainer.run import load_job, run_stage
from trainer.stages.base import StageJob

pytestmark = pytest.mark.slow  # whole training runs

CPU = torch.device("cpu")
Run = Callable[..., tuple[Path, StageJob, dict[str, Tensor]]]


def configured(tiny: Path, save: Path, *more: object) -> TrainConfig:
    often = ("TRAIN.STEPS", 4, "TRAIN.SAVE_EVERY", 1, "TRAIN.KEEP", 9)
    words = settings(tiny, save, *often, *more)
    return read_training([REPOSITORY / "configs" / "collavo_tiny_train.yaml"], words)[0]


@pytest.fixture
def run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a stage; gives its folder, what was loaded, and all weights as they were when training began."""

    def go(name: str, *more: object, float64: bool = False) -> tuple[Path, StageJob, dict[str, Tensor]]:
        config = configured(tiny, tmp_path / name, *more)
        kept: list[tuple[StageJob, dict[str, Tensor]]] = []

        def loading(*args: Any, **settings: Any) -> StageJob:
            job = load_job(*args, **settings)
            if float64:
                job.model.double()
            kept.append((job, {name: value.clone() for name, value in job.model.state_dict().items()}))
            return job

        monkeypatch.setattr(trainer.run, "load_job", loading)
        accelerator = Accelerator(cpu=True)
        catalog = read_training([REPOSITORY / "configs" / "collavo_tiny_train.yaml"], [])[1]
        session = make_session(evaluation_plan(config, catalog), accelerator)
        run_stage(config, accelerator, session, None, None)
        return tmp_path / name, *kept[0]

    return go


def losses(save: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (save / "log.jsonl").read_text().splitlines()]


def is_crayon(name: str) -> bool:
    return name.startswith("crayon.") or ".crayon_a." in name or ".crayon_b." in name


def is_lora(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


@pytest.mark.parametrize(
    ("stage", "more", "moves"),
    [
        ("cpt", (), is_crayon),
        ("cpt", ("TRAIN.CRAYON", "semantic"), is_crayon),
        ("cit", (), lambda name: is_crayon(name) or is_lora(name)),
        ("cit", ("TRAIN.CRAYON", "none"), is_lora),
        ("cit", ("TRAIN.ADAPTERS", "shared"), lambda name: is_crayon(name) or is_lora(name)),
        ("cit", ("TRAIN.ADAPTERS", "vl_only"), lambda name: is_crayon(name) or is_lora(name)),
    ],
)
def test_all_else_keeps_every_bit(stage: str, more: tuple[str, ...], moves: Callable[[str], bool], run: Run) -> None:
    """With a weight decay, which would move whatever the optimizer holds."""
    _, job, before = run("out", "TRAIN.STAGE", stage, "TRAIN.WEIGHT_DECAY", 0.1, *more)
    after = job.model.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(map(moves, moved))
    # the crayon weights of the last linear of a layer exist in the released checkpoint and act nowhere
    asked = {name for name in before if moves(name) and ".w2." not in name}
    still = asked - moved
    assert still <= ({"crayon.numbering.weight"} if "semantic" in more else set()), still


def rate(step: int, steps: int, highest: float, lowest: float, rise: int) -> float:
    if step < rise:
        return highest * (step + 1) / rise
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - 1 - rise)))


def test_updates_are_those_of_a_plain_loop(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Gradient accumulation, clipping, warm-up, cosine and decay, against whole batches in plain PyTorch.

    Both in float64: AdamW divides by the size of a gradient, also where that is rounding and nothing else.
    """
    given = ("TRAIN.STEPS", 6, "TRAIN.WARMUP", 0.3, "TRAIN.CLIP", 0.05, "TRAIN.WEIGHT_DECAY", 0.1, "TRAIN.LR", 3e-3)
    save, *_ = run("out", *given, "TRAIN.BATCH_SIZE", 3, float64=True)
    job = load_job(configured(tiny, tmp_path, *given, "TRAIN.BATCH_SIZE", 8), CPU)
    model = job.model.double().train()
    parameters = [p.requires_grad_(is_crayon(name)) for name, p in model.named_parameters()]
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.1)
    expected = []
    batches: Iterator[tuple[Any]] = job.data.batches(0, 6, 0, 1)  # type: ignore[assignment]  # one microbatch each
    for step, (batch,) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate(step, 6, 3e-3, 1e-6, 2)
        inputs = {n: value for n, value in replace(batch, placed=None).inputs().items() if n != "labels"}
        length = batch.labels.shape[1]
        logits = model(**inputs, use_cache=False).logits[:, -length:-1]  # images stand before all that is learned
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        assert nn.utils.clip_grad_norm_(trained, 0.05) > 0.05
        optimizer.step()
        expected.append(loss.item())
    assert losses(save) == pytest.approx(expected, rel=1e-10)
    held, named = load_file(save / STEP.format(6) / "crayon.safetensors"), dict(model.named_parameters())
    assert held.keys() == {name for name in named if is_crayon(name)}
    for name, tensor in held.items():
        torch.testing.assert_close(tensor, named[name].detach(), rtol=1e-8, atol=1e-10, msg=name)


def files(save: Path, step: int) -> dict[str, bytes]:
    folder = save / STEP.format(step)
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.safetensors")}


def test_recomputed_activations_change_no_bit(run: Run) -> None:
    more = ("TRAIN.STAGE", "cit", "TRAIN.GRADIENT_CHECKPOINTING")
    (one, *_), (two, *_) = run("one", *more, True), run("two", *more, False)
    assert losses(one) == losses(two)
    assert files(one, 4) == files(two, 4)


def test_bf16_learns_nearly_the_same_and_trains_in_float32(run: Run) -> None:
    """bf16 keeps 8 bits, 4e-3 of a loss of about 8."""
    full, *_ = run("full", "TRAIN.STAGE", "cit")
    half, job, _ = run("half", "TRAIN.STAGE", "cit", "LLM.BITS", 16, "LLM.DTYPE", "bf16")
    assert losses(half) == pytest.approx(losses(full), abs=5e-2)
    assert losses(half) != losses(full)
    types = {p.dtype for name, p in job.model.named_parameters() if not is_crayon(name) and not is_lora(name)}
    assert types == {torch.bfloat16}
    for file in ("crayon.safetensors", "image_cit/adapter_model.safetensors", "vl_cit/adapter_model.safetensors"):
        assert {tensor.dtype for tensor in load_file(half / STEP.format(4) / file).values()} == {torch.float32}


def test_what_would_change_the_order_or_the_updates_is_no_continuation(run: Run, tiny: Path, tmp_path: Path) -> None:
    save, *_ = run("out")
    shutil.rmtree(save / STEP.format(4))
    for more, message in (
        (("TRAIN.GROUP_BY_LENGTH", False), "TRAIN.GROUP_BY_LENGTH: True -> False"),
        (("TRAIN.WEIGHT_DECAY", 0.1), "TRAIN.WEIGHT_DECAY: 0.0 -> 0.1"),
        (("TRAIN.CLIP", 0.0), "TRAIN.CLIP: 1.0 -> 0.0"),
        (("TRAIN.MAX_LENGTH", 900), "TRAIN.MAX_LENGTH: 4096 -> 900"),
    ):
        with pytest.raises((RunError, AgreedError), match=re.escape(message)):
            run("out", "RESUME", True, *more)
    moved = tiny / "data" / "coco" / "val2017" / "000000000003.jpg"
    moved.rename(tmp_path / "kept.jpg")  # an image less, and every later batch would be another
    try:
        with pytest.raises((RunError, AgreedError), match=r"data: 12 samples .* -> 11 samples"):
            run("out", "RESUME", True)
    finally:
        (tmp_path / "kept.jpg").rename(moved)
    run("out", "RESUME", True)
    assert (save / STEP.format(4)).is_dir()
