"""The engine's benchmark: what it counts adds up, and comes to what is worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmark.engine import STAGES, UNKNOWN_TO_PYTORCH, Geometry, Traffic, compare, table

GEOMETRY = Geometry(64, 2, 8, 2, 192, 4, 64, 1, 56)


@pytest.mark.slow
def test_stages_add_up_and_come_near_the_floor() -> None:
    found = compare(
        GEOMETRY, questions=6, beams=3, tokens=4, repeats=1, device=torch.device("cpu"), dtype=torch.float32,
        batches=(1, 6), whole=True,
    )  # fmt: skip
    whole = found["figures"]["engine 6"]
    assert [figures["equal"] for figures in found["figures"].values()] == [6, 6, 6]
    assert list(found["stages"]) == list(STAGES)
    counted = sum(stage["gigaflop"] for stage in found["stages"].values())
    assert counted == pytest.approx(whole["gigaflop"])
    assert found["floor_gigaflop"] < whole["gigaflop"] < 1.35 * found["floor_gigaflop"]
    assert found["figures"]["plain"]["gigaflop"] > 2 * whole["gigaflop"]
    assert found["figures"]["plain"]["peak_mib"] > whole["peak_mib"] > 0
    assert all(found["stages"][name]["gigabytes"] > 0 for name in STAGES[1:])
    assert all(name in table(found) for name in (*STAGES, "engine 6"))


def test_attention_and_bytes_are_counted_as_by_hand() -> None:
    query, key, value = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8), torch.zeros(2, 3, 7, 8)
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_PYTORCH) as counter, torch.inference_mode():
        F.scaled_dot_product_attention(query, key, value)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 7 * (8 + 8)
    one, other = torch.zeros(3, 4), torch.zeros(3, 4)
    with Traffic() as traffic:
        one.view(12).reshape(4, 3)
        torch.empty(100)
        one + other
    assert traffic.moved == 3 * 12 * 4
