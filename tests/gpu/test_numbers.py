"""The stages that compare numbers, as tests for a GPU; `bash tests/gpu/run` takes them with speed and memory."""

import pytest
import torch

from tests.gpu.stages import STAGES, exact_float32

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a CUDA device's numbers; there is none"),
]


@pytest.mark.parametrize("name", ["plora", "collavo", "xdecoder", "nf4", "attention", "engine"])
def test_stage(name: str) -> None:
    """Golden data in three types, 4-bit weights, attention; and replies for any batch, order and beams."""
    exact_float32()
    found = STAGES[name](torch.device("cuda"), False)
    if found.skipped:
        pytest.skip(found.reason)
    assert found.ok, found.reason
