"""What a forward pass costs, part by part: fvcore's counts, on the CPU or on tensors without storage (``meta``).

    cost = measure(module, inputs, part_of=lambda name: name.split(".")[0])

fvcore traces the forward pass and asks a handle what each operator costs. Its own handles know linears, convolutions
and matrix products; those here add attention, norms and what is computed element by element. Operators that only move
numbers cost nothing. Whatever else the trace holds is listed by name in `Cost.uncounted`, and never taken for zero.

Source: fvcore's FlopCountAnalysis, whose unit is kept: one multiply-add is one FLOP.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from fvcore.nn import FlopCountAnalysis, parameter_count
from fvcore.nn.jit_handles import elementwise_flop_counter, get_shape
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_PER_ELEMENT = (
    *("add", "add_", "sub", "rsub", "mul", "mul_", "div", "div_", "neg", "pow", "exp", "log", "sqrt", "rsqrt"),
    *("cos", "sin", "sigmoid", "tanh", "relu", "relu_", "gelu", "silu", "softplus", "maximum", "minimum", "where"),
    *("cumsum", "abs", "index_add", "mean", "sum", "std", "remainder", "linalg_vector_norm"),
)
"""Operators that take one operation for each element of their result, or (reductions) of what they read."""
_REDUCTIONS = ("mean", "sum", "linalg_vector_norm", "std")
_SOFTMAX = 5
"""Operations an element: maximum, difference, exponential, sum, quotient."""
_RMS_NORM = 4
"""Operations an element: square, sum, scale, weight."""
_BICUBIC = 4
"""Pixels a side that a bicubic filter weighs, where nothing shrinks."""
_MOVES = (
    *("index_select", "index_copy", "view_as", "expand_as", "reshape_as", "embedding", "new_ones", "new_empty"),
    *("ones", "ones_like", "zeros", "zeros_like", "full", "linspace", "meshgrid", "fill_", "masked_fill_", "clone"),
    *("diff", "ne", "lt", "le", "logical_and", "logical_or", "logical_not", "bitwise_and", "__or__", "any", "all"),
    *("roll", "pad", "movedim", "unflatten", "unfold", "unbind", "split_with_sizes", "alias", "tile", "repeat"),
    *("repeat_interleave", "lift_fresh", "to", "type_as", "result_type", "numpy_T", "argmax"),
)
"""Operators that move, compare or make numbers and compute nothing with them, besides those that fvcore knows."""
_PRODUCTS = (
    *("addmm", "baddbmm", "bmm", "conv", "dot", "einsum", "linear", "matmul", "mm", "mv"),
    "scaled_dot_product_attention",
)
"""Operators of multiply-adds; the others are counted as single operations."""


_Sides: TypeAlias = "int | Sequence[int]"
"""A number of a convolution, for all sides or for each."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a part of a forward pass costs.

    Attributes:
        products: multiply-adds of linears, convolutions and attention.
        elementwise: operations of norms, activations, sums and other operators that work element by element.
        uncounted: operators that no handle knows -> how often they ran.
    """

    products: int = 0
    elementwise: int = 0
    uncounted: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            products=self.products + other.products,
            elementwise=self.elementwise + other.elementwise,
            uncounted=dict(Counter(self.uncounted) + Counter(other.uncounted)),
        )


def count_parameters(module: nn.Module, part_of: Callable[[str], str]) -> dict[str, int]:
    """Parameters of each part.

    Args:
        module: possibly on the meta device.
        part_of: name of a parameter -> its part.
    Returns: part -> number of parameters, in the order of the module.

    Raises:
        ValueError: the parts do not add up to fvcore's count of the whole, as where parameters are shared.
    """
    found: Counter[str] = Counter()
    for name, parameter in module.named_parameters():
        found[part_of(name)] += parameter.numel()
    if (whole := parameter_count(module)[""]) != found.total():
        raise ValueError(f"the parts have {found.total()} parameters, the whole has {whole}")
    return dict(found)


def measure(module: nn.Module, inputs: Sequence[Tensor], part_of: Callable[[str], str]) -> dict[str, Cost]:
    """Cost of one forward pass, by part.

    Args:
        module: in evaluation mode; on any device, all of it.
        inputs: positional tensors of its forward pass, on the same device. Nothing in the pass may depend on values
            where it is the meta device.
        part_of: name of a submodule -> its part; what a module computes itself counts for its own part.
    Returns: part -> cost; they add up to fvcore's count of the whole.

    Raises:
        RuntimeError, TypeError: the pass cannot be traced: it depends on values.
    """
    analysis = FlopCountAnalysis(module, tuple(inputs))
    analysis.set_op_handle(**_handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad(), _ConstantShapes():
        counts = analysis.by_module_and_operator()
    unknown = {name: analysis.unsupported_ops(name) for name in counts}
    costs: dict[str, Cost] = {}
    for name, own, odd in _exclusive(counts, unknown):
        products = sum(number for operator, number in own.items() if operator in _PRODUCTS)
        cost = Cost(products=int(products), elementwise=int(own.total() - products), uncounted=_short(odd))
        part = part_of(name)
        costs[part] = costs.get(part, Cost()) + cost
    return costs


def _exclusive(
    counts: Mapping[str, Counter[str]], unknown: Mapping[str, Counter[str]]
) -> Iterator[tuple[str, Counter[str], Counter[str]]]:
    """What every module computes outside of its submodules."""
    own, odd = ({name: Counter(whole) for name, whole in given.items()} for given in (counts, unknown))
    for name in counts:
        if name:
            parent = name.rpartition(".")[0]
            own[parent].subtract(counts[name])
            odd[parent].subtract(unknown[name])
    for name in counts:
        yield name, own[name], odd[name]


def _short(operators: Counter[str]) -> dict[str, int]:
    return {name.removeprefix("aten::"): number for name, number in operators.items() if number}


def _handles() -> dict[str, Callable[..., Any] | None]:
    """Handles for what fvcore has none for; None for operators that cost nothing."""
    handles: dict[str, Callable[..., Any] | None] = {f"aten::{name}": None for name in _MOVES}
    for name in _PER_ELEMENT:
        reads = name in _REDUCTIONS
        handles[f"aten::{name}"] = elementwise_flop_counter(int(reads), int(not reads))
    handles["aten::softmax"] = elementwise_flop_counter(0, _SOFTMAX)
    handles["aten::rms_norm"] = elementwise_flop_counter(0, _RMS_NORM)
    handles["aten::scaled_dot_product_attention"] = _attention
    handles["aten::baddbmm"] = _baddbmm
    for name in ("matmul", "mv", "dot"):
        handles[f"aten::{name}"] = _matmul
    handles["aten::_upsample_bicubic2d_aa"] = _antialiased_bicubic
    return handles


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Multiply-adds of scores and weighted sum; masked positions count like the others."""
    *batch, queries, value_width = get_shape(outputs[0])
    width, keys = get_shape(inputs[0])[-1], get_shape(inputs[2])[-2]
    return int(torch.Size(batch).numel() * queries * keys * (width + value_width))


def _matmul(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Multiply-adds of a product of vectors, matrices or batches of them, either of which may be broadcast."""
    return int(torch.Size(get_shape(outputs[0])).numel() * get_shape(inputs[0])[-1])


def _baddbmm(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    batch, rows, inner = get_shape(inputs[1])
    return int(batch * rows * inner * get_shape(inputs[2])[-1])


def _antialiased_bicubic(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Operations of two passes, across and down, whose windows widen with the factor that a side shrinks by."""
    *batch, height, width = get_shape(inputs[0])
    *_, rows, columns = get_shape(outputs[0])
    window = [_BICUBIC * max(1.0, old / new) for old, new in ((width, columns), (height, rows))]
    return int(torch.Size(batch).numel() * columns * (height * window[0] + rows * window[1]))


class _ConstantShapes(TorchFunctionMode):
    """Lets shapes be plain numbers while a forward pass is traced.

    The tracer makes tensors of them, with which neither Python's arithmetic nor the shape functions of the meta device
    can do anything. A convolution is called by the operator that the tracer records; on the meta device it would
    otherwise be passed over.
    """

    _shapes = (
        Tensor.shape.__get__,  # type: ignore[attr-defined]
        Tensor.size,
        Tensor.dim,
        Tensor.numel,
        Tensor.__len__,
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._shapes:
            with _untraced():
                return func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            return _CONVOLUTIONS[func](*args, **kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    tracer: Any = torch._C  # whose stubs know only half of this
    state = tracer._get_tracing_state()
    tracer._set_tracing_state(None)
    try:
        yield
    finally:
        tracer._set_tracing_state(state)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Sides = 1,
    padding: _Sides | str = 0,
    dilation: _Sides = 1,
    groups: int = 1,
) -> Tensor:
    """As ``torch.conv1d``, ``conv2d`` and ``conv3d``."""
    if isinstance(padding, str):
        input, padding = _padded_by_name(input, weight, padding, dilation), 0
    return _convolve(input, weight, bias, stride, padding, dilation, False, 0, groups)


def _transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Sides = 1,
    padding: _Sides = 0,
    output_padding: _Sides = 0,
    groups: int = 1,
    dilation: _Sides = 1,
) -> Tensor:
    """As ``torch.conv_transpose1d``, ``conv_transpose2d`` and ``conv_transpose3d``."""
    return _convolve(input, weight, bias, stride, padding, dilation, True, output_padding, groups)


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: _Sides,
    padding: _Sides,
    dilation: _Sides,
    transposed: bool,
    output_padding: _Sides,
    groups: int,
) -> Tensor:
    """As ``torch.convolution``, with or without a batch dimension."""
    num_sides = weight.dim() - 2
    strides, paddings, dilations, output_paddings = (
        _per_side(value, num_sides) for value in (stride, padding, dilation, output_padding)
    )
    is_single = input.dim() == weight.dim() - 1
    x = input.unsqueeze(0) if is_single else input
    sizes = (strides, paddings, dilations, transposed, output_paddings, groups)
    y = torch._convolution(x, weight, bias, *sizes, False, False, False, False)
    return y.squeeze(0) if is_single else y


def _padded_by_name(x: Tensor, weight: Tensor, padding: str, dilation: _Sides) -> Tensor:
    """What a convolution with ``padding`` "same" or "valid" reads; an odd place of "same" is behind."""
    if padding == "valid":
        return x
    pads: list[int] = []
    for size, step in zip(weight.shape[:1:-1], reversed(_per_side(dilation, weight.dim() - 2)), strict=True):
        missing = step * (size - 1)
        pads += [missing // 2, missing - missing // 2]
    return F.pad(x, pads)


def _per_side(value: _Sides, num_sides: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * num_sides if len(values) == 1 else values


_CONVOLUTIONS: Mapping[Any, Callable[..., Tensor]] = {
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    torch.conv_transpose1d: _transposed_convolution,
    torch.conv_transpose2d: _transposed_convolution,
    torch.conv_transpose3d: _transposed_convolution,
    torch.convolution: _convolve,
}
