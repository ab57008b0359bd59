"""What ``torch.save`` writes since torch 1.6, read without running what is in it.

It is a zip archive of a pickle that describes tensors, and of their bytes. The pickle is read here: of what it may
name, only what describes tensors is known, so that no code of a file runs; a tensor's shape is known before its bytes
are touched, and none can be larger than the bytes that are there. The archive's checksums are compared, which
``torch.load`` does not do. Describing loads no torch.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from configs.common.words import quoted

from .files import FileError, check_real
from .stored_tensor import SAFETENSORS, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

_STORAGES = {
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}
_OLD_FORMAT = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch wrote first before version 1.6
ZIP = b"PK\x03\x04"
"""First bytes of an archive."""
_LOCAL_HEADER = 30
_MOST_DIMENSIONS, _LONGEST_SIDE = 8, 2**40
_CHUNK = 2**22


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """Bytes of a zip archive: where they begin and end in the file, and their checksum."""

    start: int
    size: int
    crc: int


@dataclass(frozen=True, kw_only=True)
class ArchivedTensor(StoredTensor):
    """A tensor of a torch archive.

    Attributes:
        file: the archive.
        entry: its storage's bytes, which other tensors may share.
        offset: of its first element in the storage.
        strides: in elements.
        has_crc: false where the archive was written without checksums.
    """

    file: Path
    entry: _Entry
    offset: int
    strides: tuple[int, ...]
    has_crc: bool

    def tensor(self, whole: Any) -> Tensor:
        """The tensor itself, in the bytes of its whole file, an untyped storage."""
        import torch

        part = whole[self.entry.start : self.entry.start + self.entry.size]
        empty = torch.empty(0, dtype=getattr(torch, self.dtype))
        return empty.set_(part, self.offset, self.shape, self.strides)


def named_tensors(content: Any, file: Path) -> Mapping[str, ArchivedTensor]:
    """An archive's content as tensors by name.

    Raises:
        FileError: it is something else; the first that is no tensor is named.
    """
    if not isinstance(content, Mapping):
        raise FileError(f"{file}: holds a {type(content).__name__}, not a dictionary of tensors")
    for key, value in content.items():
        if not isinstance(key, str):
            raise FileError(f"{file}: {quoted(key)} is no name of a tensor")
        if not isinstance(value, ArchivedTensor):
            raise FileError(f"{file}: {quoted(key)} is a {type(value).__name__}, not a tensor")
    return content


def load_described(described: Mapping[str, ArchivedTensor], file: Path, *, compared: bool = True) -> dict[str, Tensor]:
    """Tensors of an archive, see `load`.

    Args:
        described: tensors that `read_archive` found in it.
        file: the archive.
        compared: see `load`.

    Raises:
        FileError: see `load`.
    """
    import torch

    if compared:
        for item in {item.entry.start: item for item in described.values()}.values():
            check_crc(item)
    try:
        whole = torch.UntypedStorage.from_file(str(file), False, file.stat().st_size)
        return {name: item.tensor(whole) for name, item in described.items()}
    except (OSError, RuntimeError, ValueError) as error:
        raise FileError(f"{file}: not a readable weight file ({error})") from error


def check_crc(stored: StoredTensor) -> None:
    """Compare the checksum of a tensor's storage; nothing happens for a file that has none.

    Raises:
        FileError: the bytes are not those that were written.
    """
    if not isinstance(stored, ArchivedTensor) or not stored.has_crc:
        return
    with stored.file.open("rb") as stream:
        if _crc(stream, stored.entry) != stored.entry.crc:
            raise FileError(
                f"{stored.file}: is damaged: bytes of its tensors are not those that were written (checksum); "
                "download it again"
            )


def read_archive(file: Path) -> Any:
    """What ``torch.save`` wrote, with an `ArchivedTensor` in the place of each tensor.

    Raises:
        FileError: the file is missing, damaged or of another kind, or wants to run code.
    """
    check_real(file)
    try:
        with file.open("rb") as stream:
            _check_format(stream, file)
            entries = _entries(stream, file)
            description = _description(entries, file)
            # written without checksums, all of them are 0; the bytes then speak for themselves
            has_crc = any(entry.crc for entry in entries.values())
            stream.seek(entries[description].start)
            data = stream.read(entries[description].size)
            if has_crc and zlib.crc32(data) != entries[description].crc:
                raise FileError(f"{file}: is damaged: its list of tensors is not the one that was written (checksum)")
            prefix = description.removesuffix("data.pkl")
            _check_order(stream, entries.get(f"{prefix}byteorder"), file)
    except OSError as error:
        raise FileError(f"{file}: not readable ({error.strerror})") from error
    return _unpickled(data, _Tensors(file, prefix, entries, has_crc), file)


def _check_format(stream: BinaryIO, file: Path) -> None:
    """Name what is no zip archive for what it is."""
    head = stream.read(512)
    if head.startswith(ZIP):
        return
    if head.startswith(_OLD_FORMAT) or head[257:262] == b"ustar":
        raise FileError(
            f"{file}: is in the format of torch before 1.6, which is not read; write it again with a newer torch, or "
            "as safetensors"
        )
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        stream.seek(0)
        _unpickled(stream.read(), _Tensors(file, "", {}, has_crc=False), file)
        raise FileError(f"{file}: is a bare pickle, not what torch.save writes")
    if head[8:9] == b"{":
        raise FileError(f"{file}: is safetensors; give it the suffix {SAFETENSORS}")
    raise FileError(f"{file}: not a readable weight file (neither a torch archive nor safetensors)")


def _entries(stream: BinaryIO, file: Path) -> dict[str, _Entry]:
    """The archive's directory; torch stores bytes as they are, uncompressed."""
    try:
        with zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
    except Exception as error:  # a damaged directory makes the library fail in any way
        raise FileError(f"{file}: not a readable weight file (a damaged or cut off archive: {error})") from error
    size = stream.seek(0, io.SEEK_END)
    entries = {}
    for info in infos:
        stream.seek(info.header_offset if 0 <= info.header_offset < size else size)
        header = stream.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or not header.startswith(ZIP):
            raise FileError(f"{file}: not a readable weight file (a damaged archive at {quoted(info.filename)})")
        start = info.header_offset + _LOCAL_HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        if info.compress_type != zipfile.ZIP_STORED or start + info.file_size > size or info.filename in entries:
            raise FileError(f"{file}: not a readable weight file (a damaged archive at {quoted(info.filename)})")
        entries[info.filename] = _Entry(start=start, size=info.file_size, crc=info.CRC)
    return entries


def _description(entries: Mapping[str, _Entry], file: Path) -> str:
    """Name of the archive's pickle."""
    found = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if any(name.endswith("/constants.pkl") for name in entries):
        raise FileError(f"{file}: is a TorchScript program, not weights")
    if len(found) != 1:
        raise FileError(f"{file}: not a readable weight file (a zip archive, but not one of torch.save)")
    return found[0]


def _check_order(stream: BinaryIO, entry: _Entry | None, file: Path) -> None:
    if entry is not None:
        stream.seek(entry.start)
        if (order := stream.read(min(entry.size, 16))) != b"little":
            raise FileError(f"{file}: its numbers are {quoted(order)}-endian; only little-endian ones are read")


def _crc(stream: BinaryIO, entry: _Entry) -> int:
    stream.seek(entry.start)
    value, left = 0, entry.size
    while left:
        chunk = stream.read(min(left, _CHUNK))
        if not chunk:
            break
        value, left = zlib.crc32(chunk, value), left - len(chunk)
    return value


def _unpickled(data: bytes, names: _Tensors, file: Path) -> Any:
    """Read an archive's pickle."""
    try:
        _check_memo(data)
        return _Unpickler(io.BytesIO(data), names).load()
    except _UnknownNameError as error:
        raise FileError(
            f"{file}: not a readable weight file: a pickle that wants to run code ({quoted(error.args[0])}); "
            "nothing of it was run. Weights need only tensors: get them as safetensors, or ask whoever made the file"
        ) from error
    except Exception as error:  # damaged bytes make the reader fail in any way
        raise FileError(f"{file}: not a readable weight file (its list of tensors is damaged: {error!r})") from error


def _check_memo(data: bytes) -> None:
    """The reader keeps a table as long as the largest number used in it: none may be larger than the file.

    Raises:
        ValueError: one is.
    """
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
            raise ValueError("a place in the memo that is out of range")


class _UnknownNameError(Exception):
    """A name that a pickle wants to import and that describes no tensor."""


class _Rebuilt:
    """What a pickle calls to describe a tensor; made for one file, with nothing that the file could change."""

    __slots__ = ("_names",)

    def __init__(self, names: _Tensors) -> None:
        self._names = names

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> ArchivedTensor:
        return self._names.tensor(storage, offset, shape, strides)


class _Parameter:
    """What a pickle calls to make a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


@dataclass(frozen=True)
class _Storage:
    """A storage of a pickle: its bytes, torch's name of the type, bytes of a number, how many numbers."""

    entry: _Entry
    dtype: str
    width: int
    length: int


class _Tensors:
    """From a pickle's words for storages and tensors to `ArchivedTensor`.

    Args:
        file: the archive.
        prefix: of the names of its entries.
        entries: all of them.
        has_crc: see `ArchivedTensor`.
    """

    def __init__(self, file: Path, prefix: str, entries: Mapping[str, _Entry], has_crc: bool) -> None:
        self._file, self._prefix, self._entries, self._has_crc = file, prefix, entries, has_crc

    def storage(self, name: Any) -> _Storage:
        """A storage by what the pickle calls it: a tuple of a word, type, key, device and length.

        Raises:
            ValueError: it is malformed, or its bytes are not there.
        """
        if not isinstance(name, tuple) or len(name) != 5 or name[0] != "storage" or name[1] not in _STORAGES:
            raise ValueError(f"a storage that is none: {quoted(name)}")
        (dtype, width), key, length = _STORAGES[name[1]], name[2], name[4]
        entry = self._entries.get(f"{self._prefix}data/{key}") if isinstance(key, str) else None
        if entry is None or type(length) is not int or length < 0 or length * width > entry.size:
            raise ValueError(f"the bytes of storage {quoted(key)} are not there")
        return _Storage(entry, dtype, width, length)

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> ArchivedTensor:
        """A tensor by its place in a storage.

        Raises:
            ValueError: it is malformed, or reaches beyond the storage.
        """
        if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
            raise ValueError("a tensor that is none")
        numbers = (offset, *shape, *strides)
        fits = all(type(n) is int and 0 <= n < _LONGEST_SIDE for n in numbers)
        if not fits or not len(shape) == len(strides) <= _MOST_DIMENSIONS:
            raise ValueError(f"a tensor of the shape {quoted(shape)}")
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if all(shape) and last >= storage.length:
            raise ValueError(f"a tensor of the shape {quoted(shape)} in {storage.length} numbers")
        return ArchivedTensor(
            shape=shape,
            dtype=storage.dtype,
            file=self._file,
            entry=storage.entry,
            offset=offset,
            strides=strides,
            has_crc=self._has_crc,
        )


class _Unpickler(pickle.Unpickler):
    """Reads a description of tensors, and nothing else."""

    def __init__(self, stream: io.BytesIO, names: _Tensors) -> None:
        super().__init__(stream)
        self._names = names

    def persistent_load(self, name: Any) -> Any:
        return self._names.storage(name)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuilt(self._names)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Parameter()
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch" and name in _STORAGES:
            return name
        raise _UnknownNameError(f"{module}.{name}")
