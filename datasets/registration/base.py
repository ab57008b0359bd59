"""What a reader is: what turns a benchmark's release files into records.

A reader is a frozen dataclass whose fields are the options that a declaration may set (``data: {...}``). The names that
declarations use stand in `registry.READERS`; what readers share is in ``formats``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from ..types import BadRecord, Record


class Reader(ABC):
    """Where a benchmark's release lies, and how it is read.

    Attributes:
        prompt_fields: what a prompt may name; empty where only the files can tell, as for tables with columns of their
            own.
    """

    prompt_fields: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def needed(self) -> list[tuple[str, ...]]:
        """Files that must be there, each with the places below a root that are taken for it."""

    @abstractmethod
    def read(self, roots: Sequence[Path]) -> Iterator[Record | BadRecord]:
        """Read the records, and what is wrong with those that cannot be read, in the order of the files.

        Args:
            roots: folders to search.

        Raises:
            DataError: a file is missing or unreadable.
        """

    def besides(self, roots: Sequence[Path], fields: Container[str]) -> list[tuple[str, ...]]:
        """What questions are asked with besides: for each file or folder, the places below a root where it may be.

        Args:
            roots: folders to search.
            fields: that the prompt names.
        """
        return []
