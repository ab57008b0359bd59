"""What every parity command shares: one compared quantity, how tensors are compared, and the table that is printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from torch import Tensor

from tests.parity.collavo import Difference

__all__ = ["Difference", "difference", "write_table"]


def difference(quantity: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Difference:
    """Largest absolute difference of two tensors; infinite where the shapes differ, NaN where a value is NaN."""
    if ours.shape != theirs.shape:
        return Difference(f"{quantity} (shape {tuple(ours.shape)}, not {tuple(theirs.shape)})", float("inf"), tolerance)
    if ours.numel() == 0:
        return Difference(quantity, 0.0, tolerance)
    return Difference(quantity, float((ours.double() - theirs.double()).abs().max()), tolerance)


def write_table(differences: Iterable[Difference]) -> int:
    """Write one line per quantity; the number of those past their tolerance."""
    failed = 0
    for item in differences:
        failed += not item.ok
        verdict = "ok" if item.ok else "FAILED"
        sys.stdout.write(f"{item.quantity:<64}{item.value:>12.3g}  allowed {item.tolerance:<8g}{verdict}\n")
    sys.stdout.write(f"{'all within the tolerances' if not failed else f'{failed} past the tolerance'}\n")
    return failed
