"""Parameters and FLOPs of `describe`, against numbers that were worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from collavo.checkpoint.sizes import Sizes
from collavo.describe import (
    CRAYON_PAIRS,
    IMAGE_PAIRS,
    PartDescription,
    Workload,
    add_adapters,
    blank_model,
    describe,
    read_sizes,
)
from collavo.errors import CheckpointError
from modeling.cost import Cost, measure

SMALL: dict[str, Any] = {
    "text_config": {
        "vocab_size": 10,
        "embedding_rows": 11,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "plora_rank": 3,
        "plora_alpha": 3.0,
    },
    "vision_config": {
        "hidden_size": 6,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 2,
        "image_size": 4,
    },
    "crayon_width": 5,
    "image_token_id": 10,
    "image_size": 4,
}
"""4 image tokens (and a class token); heads of width 3 in the tower, 2 in the decoder, whose projection is 8 to 16."""

PROMPT = Workload(text_tokens=3, crayon_vectors=2)


def described(device: str, adapters: tuple[str, ...] = ()) -> dict[str, PartDescription]:
    model = blank_model(Sizes.model_validate(SMALL), device)
    add_adapters(model, adapters, rank=2, alpha=2)
    return {row.name: row for row in describe(model, PROMPT)}


def test_parameters_are_those_worked_out_by_hand() -> None:
    rows = described("meta", ("image_cit",))
    layer = 2 * 12 + 4 * (6 * 6 + 6) + (6 * 20 + 20) + (20 * 6 + 6)  # norms, four projections, MLP
    tower = 6 + 3 * 2 * 2 * 6 + 5 * 6 + layer + 2 * 12  # class token, patches, positions, layer, two norms
    linears = [(8, 16), (8, 8), (8, 12), (8, 12), (12, 8)]  # wqkv, wo, w1, w3, w2
    assert {name: row.parameters for name, row in rows.items() if row.parameters} == {
        "vision tower": tower,
        "projector": 6 * 8 + 8 + 8 * 8 + 8,
        "crayon prompt, queries and MLP": (134 + 21) * 5 + 5 * 8 + 8 + 8 * 8 + 8,
        "token embeddings": 11 * 8,
        "decoder": sum(a * b for a, b in linears) + 3 * 8,
        IMAGE_PAIRS: sum(3 * (a + b) for a, b in linears),
        CRAYON_PAIRS: sum(3 * (a + b) for a, b in linears[:-1]),  # w2 has none
        "output layer": 8 * 10,
        "adapter image_cit": sum(2 * (a + b) for a, b in linears),
    }


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_products_are_those_worked_out_by_hand(device: str) -> None:
    rows = described(device, ("image_cit", "vl_cit"))
    base = 8 * 16 + 8 * 8 + 8 * 12 + 8 * 12 + 12 * 8
    pairs = 16 + 24 + 20 + 20 + 20  # inputs and outputs of the five linears, w2 the last
    layer = 5 * (4 * 36 + 2 * 6 * 20) + 2 * 2 * 5 * 5 * 3  # class token and 4 patches; scores and weighted sum
    prompt = {name: row.prompt.products for name, row in rows.items() if row.prompt.products}
    adapter = 7 * 2 * (24 + 16 + 20 + 20 + 20)
    assert prompt == {
        "vision tower": 4 * 12 * 6 + layer,
        "projector": 4 * (6 * 8 + 8 * 8),
        "crayon prompt, queries and MLP": 2 * (5 * 8 + 8 * 8),
        "decoder": 7 * base + 2 * 4 * 7 * 7 * 2,  # 4 image tokens and 3 of text
        IMAGE_PAIRS: 4 * 3 * pairs,
        CRAYON_PAIRS: 2 * 3 * (pairs - 20),
        "output layer": 80,
        "adapter image_cit": adapter,
        "adapter vl_cit": adapter,
    }
    token = {name: row.token.products for name, row in rows.items() if row.token.products}
    assert token == {
        "decoder": base + 2 * 4 * 8 * 2,  # one query, eight keys
        "output layer": 80,
        "adapter image_cit": adapter // 7,
        "adapter vl_cit": adapter // 7,
    }
    assert not any(row.prompt.uncounted or row.token.uncounted for row in rows.values())


def test_the_meta_device_counts_what_the_cpu_counts() -> None:
    assert described("meta", ("image_cit", "vl_cit")) == described("cpu", ("image_cit", "vl_cit"))


class Odd(nn.Module):
    """A linear and, outside of it, an operator that no handle knows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.erfinv(self.linear(x)) * 2


def test_an_operator_that_no_handle_knows_is_named() -> None:
    costs = measure(Odd(), (torch.zeros(2, 4),), lambda name: name or "self")
    assert costs == {"self": Cost(elementwise=6, uncounted={"erfinv": 1}), "linear": Cost(products=24)}


def test_sizes_need_nothing_but_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"model_type": "collavo"}))
    assert read_sizes(tmp_path) == (Sizes.model_validate(SMALL), None)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "internlmxcomposer2", "num_attention_heads": 32, "num_hidden_layers": 4})
    )
    sizes, _ = read_sizes(tmp_path)
    assert (sizes.text_config.num_hidden_layers, sizes.text_config.num_key_value_heads) == (4, 32)
    assert sizes.vision_config == Sizes().vision_config
    assert read_sizes(None) == (Sizes(), None)


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"model_type": "collavo"}))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_sizes(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 3}, "3 attention heads do not divide the width 8"),
        ({"num_key_value_heads": 3}, "3 key-value heads do not divide 4"),
        ({"hidden_size": "8"}, "text_config.hidden_size: .*'8'"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    sizes = SMALL | {"model_type": "collavo", "text_config": SMALL["text_config"] | change}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(CheckpointError, match=message):
        read_sizes(tmp_path)
