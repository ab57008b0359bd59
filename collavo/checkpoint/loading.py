"""What goes on while transformers puts weights into a model: each is looked at once, as it is read.

A weight that is NaN, infinite or beyond the compute type's range, or whose bytes in a ``.bin`` file are not those that
were written, ends the loading by its name. Looking at all weights beforehand would read the files twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging as library

from modeling.files import FileError
from modeling.stored_tensor import StoredTensor, out_of_range
from modeling.torch_archive import ArchivedTensor, check_crc

from ..errors import CheckpointError

Progress = Callable[[int, int], None]
"""Called with the bytes of the checkpoint that have been loaded, and with all of them."""


class _Watch:
    """Looks at weights.

    Args:
        described: our name -> file and description.
        tensors: the weights by our names, on the CPU.
        dtype: the compute type.
        progress: called after every weight; None for nobody.
    """

    def __init__(
        self,
        described: Mapping[str, tuple[Path, StoredTensor]],
        tensors: Mapping[str, Tensor],
        dtype: torch.dtype,
        progress: Progress | None,
    ) -> None:
        self._described, self._tensors, self._dtype, self._progress = described, tensors, dtype, progress
        self._left = set(tensors)
        self._checked: set[tuple[Path, int]] = set()
        self._total = sum(tensor.nbytes for tensor in tensors.values())
        self._done = 0

    def look(self, name: str) -> None:
        """Look at a weight, unless that has been done.

        Raises:
            CheckpointError: it cannot be used.
        """
        if name not in self._left:
            return
        self._left.remove(name)
        file, stored = self._described[name]
        tensor = self._tensors[name]
        try:
            if isinstance(stored, ArchivedTensor) and (file, stored.entry.start) not in self._checked:
                self._checked.add((file, stored.entry.start))
                check_crc(stored)
        except FileError as error:
            raise CheckpointError(str(error)) from error
        if why := out_of_range(tensor, self._dtype):
            raise CheckpointError(f"{file}: {name} {why}")
        self._done += tensor.nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)

    def rest(self) -> None:
        """Look at what has not been looked at."""
        for name in sorted(self._left):
            self.look(name)

    def hook(self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stand in for the library's bar over the weights that it loads, pairs of a name and what it does with it."""
        items = args[0] if args else None
        if not isinstance(items, type({}.items())):
            return factory(*args, **kwargs)
        looked = self._looked(items)
        return looked if self._progress is not None else factory(looked, *args[1:], total=len(items), **kwargs)

    def _looked(self, items: Any) -> Iterator[Any]:
        for name, item in items:
            self.look(name)
            yield name, item


@contextmanager
def watched_loading(
    described: Mapping[str, tuple[Path, StoredTensor]],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    progress: Progress | None,
) -> Iterator[None]:
    """While this lasts, transformers loads weights that are looked at.

    Args:
        described: our name -> file and description.
        tensors: the weights by our names, on the CPU.
        dtype: the compute type.
        progress: see `Progress`; None for the library's own bar.

    Raises:
        CheckpointError: a weight cannot be used; it is named.
    """
    watch = _Watch(described, tensors, dtype, progress)
    before = library.set_tqdm_hook(watch.hook)
    try:
        yield
        watch.rest()
    finally:
        library.set_tqdm_hook(before)
