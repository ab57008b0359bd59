"""The count of step 2's memory against a model that is really there, and the count at full size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from torch import Tensor

from assets.tiny.random_checkpoint import make_tiny
from collavo.adapters import IMAGE_CIT, VL_CIT, Adapters
from collavo.config import CoLLaVOConfig
from collavo.load_collavo import load_model
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.options import LLMConfig
from modeling.live_bytes import LiveBytes
from tests.benchmark.memory import CARD, count, lasting, measured, passing
from tests.unit.trainer.test_updates import configured
from trainer.memory import LEARNED, UpdateMemory, all_tensors, count_update_memory, prepare_for_update, run_row
from trainer.parallel.trainable import Parameters, adapter_groups, trainable_parameters
from trainer.run import load_job

RANK, TOKENS, LABELS = 4, 96, 16


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[CoLLaVOForConditionalGeneration, Adapters]:
    folder = tmp_path_factory.mktemp("memory") / "checkpoint"
    make_tiny(folder, seed=0)
    model = load_model(LLMConfig(BITS=4, DTYPE="bf16"), folder, torch.device("cpu"), trainable=True)
    return model, Adapters(model, (IMAGE_CIT, VL_CIT), rank=RANK, alpha=RANK)


def size(*tensors: Tensor | None) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def test_weights_gradients_and_optimiser_state_are_counted_to_the_byte(
    loaded: tuple[CoLLaVOForConditionalGeneration, Adapters],
) -> None:
    model, sets = loaded
    adapters = adapter_groups(model, sets, "both")
    adapter = prepare_for_update(model, adapters)
    moving: Parameters = trainable_parameters(adapters)
    optimizer = torch.optim.AdamW(moving.values(), lr=1e-3)
    for parameter in moving.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = size(*(value for held in optimizer.state.values() for value in held.values()))
    for parameter in moving.values():
        parameter.grad = None
    prepare_for_update(model, adapters)
    items = lasting(model.config, RANK)
    numbers = [item.bytes for item in items]
    packed = [module.weight for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    quantised = sum(
        size(w, w.quant_state.absmax, w.quant_state.code, w.quant_state.offset)
        + size(w.quant_state.state2.absmax, w.quant_state.state2.code)
        for w in packed
    )
    assert packed and numbers[0] == quantised
    known = {id(w) for w in packed} | {id(p) for p in moving.values()}
    assert numbers[1] == size(*(p for p in model.parameters() if id(p) not in known))
    assert numbers[2] + numbers[3] == size(*moving.values())
    assert numbers[4] == size(*(p.grad for p in model.parameters())) == size(*adapter)
    assert numbers[5] == state


@pytest.mark.slow
def test_activations_are_those_of_a_real_pass(loaded: tuple[CoLLaVOForConditionalGeneration, Adapters]) -> None:
    model, sets = loaded
    prepare_for_update(model, adapter_groups(model, sets, "both"))
    pixels = torch.zeros(1, 3, model.config.image_size, model.config.image_size, dtype=torch.bfloat16)
    with LiveBytes(all_tensors(model)) as live:
        run_row(model, pixels, TOKENS, LABELS, torch.bfloat16)
    assert live.peak > 10_000
    assert passing(model.config, RANK, TOKENS, LABELS).backward == pytest.approx(live.peak, rel=0.05)


def test_live_bytes_are_those_that_are_held() -> None:
    with LiveBytes() as live:
        first = torch.zeros(100)
        view = first[10:]
        second = torch.zeros(50, dtype=torch.float64)
        del first
        assert live.now == 800
        del view, second
        assert live.now == 0
    assert live.peak == 800


@pytest.mark.slow
def test_step_two_fits_a_card_of_24_gb() -> None:
    items = count(CoLLaVOConfig(), rank=64, tokens=1536, labels=300)
    assert 17e9 < items[-1].bytes < CARD
    assert items[-1].bytes == sum(item.bytes for item in items[:-1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures what a CUDA device allocates; there is none")
def test_a_gpu_allocates_no_more_than_counted() -> None:
    items = count(CoLLaVOConfig(), rank=64, tokens=1536, labels=300)
    peak = measured(CoLLaVOConfig(), 64, 1536, 300, torch.device("cuda"))
    assert 0.8 * items[-1].bytes < peak < items[-1].bytes


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["cpt", "cit"])
def test_training_counts_the_same_before_it_starts(stage: str, tiny: Path, tmp_path: Path) -> None:
    """On a model that is there: weights, gradients and moments to the byte, activations as of a real pass."""
    given = (
        "TRAIN.STAGE",
        stage,
        "TRAIN.MAX_LENGTH",
        TOKENS,
        "TRAIN.BATCH_SIZE",
        1,
        "TRAIN.GRADIENT_CHECKPOINTING",
        True,
    )
    job: Any = load_job(configured(tiny, tmp_path, *given), torch.device("cpu"))
    model, moving = job.model, list(trainable_parameters(job.adapters).values())
    counted = count_update_memory(model, job.adapters, job._config, names=job._parts.adapters.names, processes=1)
    prepare_for_update(model, job.adapters)
    assert counted.weights == size(*model.parameters(), *model.buffers())
    assert counted.gradients == size(*(p.grad for p in model.parameters()))
    optimizer = torch.optim.AdamW(moving, lr=1e-3)
    for parameter in moving:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert counted.moments == size(*(value for held in optimizer.state.values() for value in held.values()))
    prepare_for_update(model, job.adapters)
    pixels = torch.zeros(1, 3, model.config.image_size, model.config.image_size)
    with LiveBytes(all_tensors(model)) as live:
        run_row(model, pixels, TOKENS, TOKENS // LEARNED, None)
    assert counted.activations == pytest.approx(live.peak, rel=0.05) and live.peak > 10_000
    two = count_update_memory(model, job.adapters, job._config, names=job._parts.adapters.names, processes=2)
    assert two.gradients == size(*moving) and counted.segmenter == 0  # the maps lie on disk


def test_what_would_make_an_update_fit_is_said_with_what_it_saves(tiny: Path, tmp_path: Path) -> None:
    config = configured(tiny, tmp_path, "SEGMENTER.NAME", "mask2former", "TRAIN.BATCH_SIZE", 2)
    counted = UpdateMemory(
        weights=9 * 10**9, gradients=3 * 10**9, moments=6 * 10**9, activations=3 * 10**9, segmenter=2 * 10**9
    )
    assert counted.total == 23.6e9
    assert counted.in_words(config, 24 * 10**9).endswith("segmenter 2.0, CUDA 0.6); the GPU has 24.0 GB")
    tight = counted.in_words(config, 22 * 10**9)
    assert tight.startswith("memory of an update, counted: 23.6 GB (weights 9.0, gradients 3.0, moments (adamw) 6.0")
    assert "may not fit. What saves memory: maps made beforehand by lbk_entry.py maps train (2.0 GB)" in tight
    assert "TRAIN.OPTIMIZER adamw_8bit (about 4.5 GB), TRAIN.BATCH_SIZE 1, a lower TRAIN.MAX_LENGTH" in tight
