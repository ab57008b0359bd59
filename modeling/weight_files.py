"""Tensors in files: described without reading them, read, and written.

Two formats are read: safetensors, through its library, and torch archives (``modeling/torch_archive.py``); safetensors
alone is written. Describing loads no torch. Whoever reads a checkpoint turns a `FileError` into an error of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .files import FileError, check_real, give_usual_permissions
from .stored_tensor import SAFETENSORS, StoredTensor
from .torch_archive import ZIP, load_described, named_tensors, read_archive

if TYPE_CHECKING:
    from torch import Tensor

_SAFETENSORS_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def describe(file: Path) -> Mapping[str, StoredTensor]:
    """Names, shapes and types of a file's tensors. Loads no torch and none of their bytes.

    Args:
        file: ``.safetensors``, or a torch archive under any other suffix.

    Raises:
        FileError: it is missing, damaged, of another kind, or holds anything but named tensors.
    """
    check_real(file)
    if file.suffix == SAFETENSORS:
        return _describe_safetensors(file)
    return named_tensors(read_archive(file), file)


def load(file: Path, *, compared: bool = True) -> dict[str, Tensor]:
    """Read all tensors of a file, memory-mapped on the CPU.

    Args:
        file: see `describe`.
        compared: compare an archive's checksums, which reads all of it; False for who calls `check_crc` later.

    Raises:
        FileError: see `describe`; or bytes were changed since an archive was written.
    """
    if file.suffix != SAFETENSORS:
        return load_described(named_tensors(read_archive(file), file), file, compared=compared)
    check_real(file)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise FileError(f"{file}: not a readable weight file ({error})") from error


def save(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file that others may read as they may read its siblings.

    Args:
        tensors: by name, contiguous.
        file: its folder must exist.
        metadata: texts to go along.
    """
    from safetensors.torch import save_file

    save_file(dict(tensors), file, metadata=dict(metadata) if metadata is not None else None)
    give_usual_permissions(file)


def _describe_safetensors(file: Path) -> dict[str, StoredTensor]:
    """See `describe`."""
    from safetensors import SafetensorError, safe_open

    with file.open("rb") as stream:
        if stream.read(len(ZIP)) == ZIP:
            raise FileError(f"{file}: is a torch archive, not safetensors; give it the suffix .bin")
    try:
        with safe_open(file, framework="numpy") as opened:
            parts = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - not a mapping
            return {
                key: StoredTensor(
                    shape=tuple(part.get_shape()), dtype=_SAFETENSORS_TYPES.get(part.get_dtype(), part.get_dtype())
                )
                for key, part in parts.items()
            }
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise FileError(f"{file}: not a readable weight file ({error})") from error
