"""What is quantised, and what the weights then take, counted and measured."""

import pytest
import torch

from assets.tiny.random_checkpoint import tiny_config
from collavo.config import CoLLaVOConfig
from collavo.load_collavo import NOT_QUANTISED
from collavo.model import CoLLaVOForConditionalGeneration
from modeling.quantize import modules_to_keep, quantization_config, weight_bytes
from tests.processor import RIGHT_INT8


@pytest.fixture(scope="module")
def full_size() -> CoLLaVOForConditionalGeneration:
    with torch.device("meta"):
        return CoLLaVOForConditionalGeneration(CoLLaVOConfig())


def test_four_bit_full_size_stays_below_the_limit(full_size: CoLLaVOForConditionalGeneration) -> None:
    size = weight_bytes(full_size, 4, torch.float16, NOT_QUANTISED)
    low_rank_and_base = 6_979_321_856 + 603_979_776 + 603_979_776 - 32 * 256 * (14336 + 4096) + 41_959_424
    rest = sum(p.numel() for p in full_size.parameters()) - low_rank_and_base
    assert size < 6.6e9
    assert size == pytest.approx(low_rank_and_base * 0.515869140625 + 2 * rest, rel=1e-3)


def test_at_full_size_only_tower_and_output_are_kept(full_size: CoLLaVOForConditionalGeneration) -> None:
    kept = modules_to_keep(full_size, NOT_QUANTISED)
    assert {name.split(".")[0] for name in kept} == {"vision_tower", "output"}


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=RIGHT_INT8)])
def test_quantised_model_runs_on_the_cpu_and_weighs_what_was_counted(bits: int) -> None:
    torch.manual_seed(0)
    config = tiny_config(601, 600)
    model = CoLLaVOForConditionalGeneration(config).eval()
    keep = modules_to_keep(model, NOT_QUANTISED)
    quantised = CoLLaVOForConditionalGeneration.from_pretrained(
        None,
        config=config,
        state_dict=model.state_dict(),
        dtype=torch.float32,
        quantization_config=quantization_config(bits, torch.float32, keep),
        device_map={"": torch.device("cpu")},
    ).eval()
    changed = {
        name
        for name, module in quantised.named_modules()
        if type(module).__name__.startswith("Linear") and type(module) is not torch.nn.Linear
    }
    assert {f"language_model.layers.0.attention.{part}.base" for part in ("wqkv", "wo")} <= changed
    assert not any(name.startswith(NOT_QUANTISED) for name in changed)
    counted = weight_bytes(model, bits, torch.float32, NOT_QUANTISED)
    assert quantised.get_memory_footprint() == pytest.approx(counted, rel=0.03)
    ids = torch.randint(3, 590, (2, 9))
    ids[:, 2] = 600
    tokens = config.num_image_tokens
    inputs = {
        "input_ids": ids,
        "pixel_values": torch.randn(2, 3, config.image_size, config.image_size),
        "semantic": torch.randint(0, 134, (2, tokens)),
        "numbering": torch.randint(0, 21, (2, tokens)),
    }
    with torch.no_grad():
        exact, rough = model(**inputs).logits, quantised(**inputs).logits
    error = (exact - rough).norm() / exact.norm()
    assert 0 < error < (0.5 if bits == 4 else 0.1)
    assert quantised.generate(**inputs, max_new_tokens=3, num_beams=3, do_sample=False).shape == (2, 12)
