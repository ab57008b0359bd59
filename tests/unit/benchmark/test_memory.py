"""The count of step 2's memory against a model that is really there, and the count at full size."""

from __future__ import annotations

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
from tests.benchmark.memory import CARD, all_tensors, count, lasting, measured, passing, prepare, update
from trainer.parallel.trainable import Parameters, adapter_groups, trainable_parameters

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
    adapter = prepare(model, adapters)
    moving: Parameters = trainable_parameters(adapters)
    optimizer = torch.optim.AdamW(moving.values(), lr=1e-3)
    for parameter in moving.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = size(*(value for held in optimizer.state.values() for value in held.values()))
    for parameter in moving.values():
        parameter.grad = None
    prepare(model, adapters)
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
    prepare(model, adapter_groups(model, sets, "both"))
    pixels = torch.zeros(1, 3, model.config.image_size, model.config.image_size, dtype=torch.bfloat16)
    with LiveBytes(all_tensors(model)) as live:
        update(model, pixels, TOKENS, LABELS, torch.bfloat16)
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
