"""How many rows a block has, such that no row's numbers depend on it.

Kernels choose by the shape of a product how they sum it up. A block of one number of rows is therefore always safe, but
idle rows cost as much as others. On a CPU, blocks get as few rows as their questions need, from a few numbers of rows
that have been checked on this machine: every product of the model gives a row the same bits as in a full block. What
is computed element by element takes whole vectors. Where a number of rows fails, blocks have more, and nothing of a
reply changes: it is that of a full block in any case.

Shape legend: R rows, H query heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from modeling.plora import PLoRALinear

from .model import CoLLaVOForConditionalGeneration

FULL = {"cpu": 16, "cuda": 64}
"""Rows of a full block, by device: enough that weights are read for many rows at a time."""

CHECKED_ON_CPU = (4, 8, 12, 20, 24, 28, 32)
"""Other numbers of rows that are tried on a CPU. More than these hardly go faster, and delay finished rows."""

VECTOR = 32
"""Elements of float32 that a CPU takes at a time, two of its widest vectors: what is left over takes another way."""

COMPARED = 1 << 15
"""Numbers of each product that are compared at least: a sum in another order rounds otherwise in many of them, but only
a few of thousands keep the difference where the result is rounded to half precision."""


class BlockRows:
    """Numbers of rows that blocks of a model may have.

    Args:
        model: in evaluation mode, on its device.
        others: numbers of rows to try besides that of a full block; none for a device on which that is not checked.
    """

    def __init__(self, model: CoLLaVOForConditionalGeneration, others: Sequence[int] | None = None) -> None:
        kind = model.device.type
        if others is None:
            # 8-bit products look at all rows at once
            checked = kind == "cpu" and not getattr(model, "is_loaded_in_8bit", False)
            others = CHECKED_ON_CPU if checked else ()
        self._model, self._full = model, FULL.get(kind, FULL["cuda"])
        self._counts = sorted({*others, self._full})
        self._agrees = {self._full: True}

    @property
    def most(self) -> int:
        """Rows of the largest block."""
        return next(count for count in reversed(self._counts) if self.agrees(count))

    def fitting(self, needed: int) -> int:
        """The fewest rows that may hold as many as are needed; beyond the largest block, a multiple of a full one."""
        fits = (count for count in self._counts if count >= needed and self.agrees(count))
        return next(fits, -(-needed // self._full) * self._full)

    def agrees(self, count: int) -> bool:
        """Whether a row has the same numbers in a block of so many rows as in a full one; found out once."""
        if count not in self._agrees:
            with torch.inference_mode():
                self._agrees[count] = self._takes_whole_vectors(count) and all(
                    self._same_bits(product, width, count) for product, width in self._products()
                )
        return self._agrees[count]

    def _takes_whole_vectors(self, count: int) -> bool:
        """Whether exponentials, sines and cosines of all rows fill vectors, as they do in a full block."""
        text = self._model.config.text
        floats = (text.num_attention_heads, text.head_dim // 2)
        activations = count * text.intermediate_size  # of half precision, of which a vector holds twice as many
        return all(count * size % VECTOR == 0 for size in floats) and activations % (2 * VECTOR) == 0

    def _products(self) -> Iterator[tuple[Callable[[Tensor], Tensor], int]]:
        """Every kind of product in a decoding step, and the width of what it takes."""
        text = self._model.config.text
        inner = {"wo": text.num_attention_heads * text.head_dim, "w2": text.intermediate_size}
        found: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {}
        for name, module in self._model.language_model.named_modules():
            if isinstance(module, PLoRALinear):
                kind = f"{name.rpartition('.')[2]} {module.base}"
                found.setdefault(kind, (module.base, inner.get(name.rpartition(".")[2], text.hidden_size)))
        yield from found.values()
        yield self._model.output, text.hidden_size

    def _same_bits(self, product: Callable[[Tensor], Tensor], width: int, count: int) -> bool:
        """Whether a product of so many rows equals, bit by bit, products of full blocks of the same rows."""
        generator = torch.Generator().manual_seed(0)
        compared = 0
        while compared < COMPARED:
            rows = torch.randn(max(count, self._full), 1, width, generator=generator).to(self._model.dtype)
            found = product(rows[:count])
            for start in {0, max(0, count - self._full)}:
                expected = product(rows[start : start + self._full])[: count - start]
                if not torch.equal(found[start : start + self._full], expected):
                    return False
            compared += found.numel()
        return True


def most_rows(device: str) -> int:
    """Rows that the largest block of a device may have, before it is known which numbers of rows agree."""
    return max(FULL[device], *CHECKED_ON_CPU) if device == "cpu" else FULL[device]
