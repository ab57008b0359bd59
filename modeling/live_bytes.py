"""How much memory operators take, counted storage by storage, on any device or on tensors without storage."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, as long as something holds them.

    Args:
        known: tensors that are counted elsewhere.

    Attributes:
        now: bytes that are alive.
        peak: the most that were.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._held: dict[int, weakref.ref[Any]] = {}
        self._known = [tensor.untyped_storage() for tensor in known]  # held, so that no number is used again
        self._known_numbers = {storage._cdata for storage in self._known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        number, size = storage._cdata, storage.nbytes()
        if number in self._known_numbers or number in self._held:
            return

        def freed(_: Any) -> None:
            self.now -= size
            del self._held[number]

        self._held[number] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)
