"""Multiply-adds of single layers and operators, on the CPU and on the meta device, against PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modeling.cost import Cost, _ConstantShapes, measure

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

Shapes = Sequence[tuple[int, ...]]


class Computes(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def cost_of(module: nn.Module, shapes: Shapes, device: str) -> Cost:
    inputs = [torch.zeros(shape, device=device) for shape in shapes]
    return sum(measure(module.to(device).eval(), inputs, lambda name: "all").values(), Cost())


def counted_by_pytorch(module: nn.Module, shapes: Shapes) -> int:
    """Its unit is two for a multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*(torch.zeros(shape) for shape in shapes))
    return int(counter.get_total_flops()) // 2


IMAGE, VOLUME, SEQUENCE = [(2, 4, 9, 8)], [(2, 4, 5, 6, 7)], [(2, 4, 9)]
LAYERS: dict[str, tuple[nn.Module, Shapes]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), SEQUENCE),
    "conv1d padded by name": (nn.Conv1d(4, 6, 4, padding="same", dilation=3), SEQUENCE),
    "conv2d without bias": (nn.Conv2d(4, 6, 3, bias=False), IMAGE),
    "conv2d of groups": (nn.Conv2d(4, 8, (3, 2), groups=2, stride=(2, 1)), IMAGE),
    "conv2d of single channels": (nn.Conv2d(4, 4, 3, groups=4, dilation=2), IMAGE),
    "conv2d not padded by name": (nn.Conv2d(4, 6, 3, padding="valid"), IMAGE),
    "conv2d padded by name": (nn.Conv2d(4, 6, (4, 3), padding="same"), IMAGE),
    "conv2d of one image": (nn.Conv2d(4, 6, 3), [(4, 9, 8)]),
    "conv2d by keywords": (Computes(lambda x, w: F.conv2d(input=x, weight=w, bias=None)), [*IMAGE, (6, 4, 3, 3)]),
    "conv3d": (nn.Conv3d(4, 6, 3, padding="same"), VOLUME),
    "transposed conv1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), SEQUENCE),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 2, stride=2), IMAGE),
    "transposed conv2d of groups": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), IMAGE),
    "transposed conv2d of one image": (nn.ConvTranspose2d(4, 6, 2, stride=2), [(4, 9, 8)]),
    "transposed conv3d": (nn.ConvTranspose3d(4, 6, 3, padding=1, dilation=2), VOLUME),
    "convolution": (
        Computes(lambda x, w: torch.convolution(x, w, None, [1], [0, 0], [1, 1], False, [0, 0], 1)),
        [*IMAGE, (6, 4, 3, 3)],
    ),
    "linear without bias": (nn.Linear(4, 6, bias=False), [(2, 3, 4)]),
    "attention layer without bias": (nn.MultiheadAttention(8, 2, bias=False), [(2, 3, 8)] * 3),
    "product with a batch on the left": (Computes(torch.matmul), [(2, 3, 4), (4, 5)]),
    "product with a batch on the right": (Computes(torch.matmul), [(3, 4), (2, 4, 5)]),
    "product of batches that are broadcast": (Computes(torch.matmul), [(1, 2, 3, 4), (5, 1, 4, 6)]),
    "product from a vector": (Computes(torch.matmul), [(4,), (4, 5)]),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_are_those_that_pytorch_counts(name: str, device: str) -> None:
    module, shapes = LAYERS[name]
    expected = counted_by_pytorch(module.to_empty(device="cpu"), shapes)
    cost = cost_of(module, shapes, device)
    assert (cost.products, dict(cost.uncounted)) == (expected, {})
    assert expected > 0


@pytest.mark.parametrize(
    ("function", "shapes", "products"),
    [
        (torch.matmul, [(3, 4), (4,)], 12),
        (torch.matmul, [(2, 3, 4), (4,)], 24),
        (torch.dot, [(4,), (4,)], 4),
        (F.scaled_dot_product_attention, [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], 2 * 3 * 5 * 7 * (4 + 6)),
        (F.scaled_dot_product_attention, [(1, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], 2 * 3 * 5 * 7 * (4 + 4)),
        (
            lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v, enable_gqa=True),
            [(2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)],
            2 * 6 * 5 * 7 * (4 + 4),
        ),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_that_pytorch_does_not_count(function: Any, shapes: Shapes, products: int, device: str) -> None:
    assert cost_of(Computes(function), shapes, device) == Cost(products=products)


@pytest.mark.parametrize("name", ["conv1d padded by name", "conv2d padded by name", "transposed conv2d of one image"])
def test_what_stands_in_for_a_convolution_computes_the_same(name: str) -> None:
    module, shapes = LAYERS[name]
    torch.manual_seed(0)
    module.to_empty(device="cpu").reset_parameters()  # type: ignore[operator]
    x = torch.randn(shapes[0])
    expected = module(x)
    with _ConstantShapes():
        assert torch.allclose(module(x), expected, atol=1e-6)
