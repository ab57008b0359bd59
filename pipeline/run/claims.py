"""Claims: files that say which process answers a chunk of questions, so that each chunk is answered once.

Before a process answers a chunk of its own share or of another's (`WorkQueue` of ``pipeline/run/questions.py``) it
claims it: it makes an empty file whose name says which one, in a folder next to the journals, and only one process can
be the one that made it (``O_EXCL``, which NFS has, too, since version 3). Nobody waits for anybody, and no process
needs to know how fast the others are.

Claims are of one session: a folder's name holds the session's token, and a rerun divides anew what has no answer, also
what a killed process had claimed. Processes that do not see each other's files (machines without a common file system)
keep to the shares that they started with.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..runtime.files import make_folder, naming_write_errors
from ..runtime.session import Session

PREFIX = "claims-"
"""How the names of folders of claims begin."""
_MEMBER = "process-"


@dataclass(frozen=True, kw_only=True)
class FolderGroup:
    """Processes that write into one and the same folder.

    Attributes:
        ranks: of the processes, in order.
        hosts: the machines they run on.
    """

    ranks: tuple[int, ...]
    hosts: tuple[str, ...]


class ClaimFolder:
    """Claims of chunks as empty files.

    Args:
        folder: exists; all processes that share work see it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, name: str) -> bool:
        """Claim a chunk; False where another process has it.

        Raises:
            WriteError: the folder is gone, or the disk is full.
        """
        file = self._folder / name
        with naming_write_errors(file):
            try:
                os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                return False
        return True

    def taken(self) -> set[str]:
        """Names that have been claimed, as far as this machine knows: a network file system may be behind."""
        with naming_write_errors(self._folder):
            return set(os.listdir(self._folder))


def find_groups(folder: Path, session: Session) -> list[FolderGroup]:
    """Find out which processes share a folder, by writing and looking. All processes must call it.

    Args:
        folder: of this session's claims; made here.
        session: of this process.
    Returns: every process in one group; the first process of a group is its lowest rank.

    Raises:
        AgreedError: it cannot be written to.
    """
    if session.world == 1:
        return [FolderGroup(ranks=(0,), hosts=(socket.gethostname(),))]
    session.together(lambda: _mark(folder, session.rank))
    views = session.gather((socket.gethostname(), session.together(lambda: _seen(folder, session.world))))
    seen = [ranks for _, ranks in views]
    groups = {ranks if all(seen[r] == ranks for r in ranks) else (rank,): None for rank, ranks in enumerate(seen)}
    return [FolderGroup(ranks=g, hosts=tuple(dict.fromkeys(views[rank][0] for rank in g))) for g in sorted(groups)]


def _mark(folder: Path, rank: int) -> None:
    file = make_folder(folder) / f"{_MEMBER}{rank}"
    with naming_write_errors(file):
        file.touch()


def _seen(folder: Path, world: int) -> tuple[int, ...]:
    return tuple(rank for rank in range(world) if (folder / f"{_MEMBER}{rank}").exists())


def group_of(rank: int, groups: Sequence[FolderGroup]) -> FolderGroup:
    """The group that a process belongs to."""
    return next(group for group in groups if rank in group.ranks)


def remove_claims(journal: Path) -> None:
    """Remove the claims of sessions that have ended from a journal's folder; what cannot be removed harms nobody."""
    for folder in journal.glob(f"{PREFIX}*"):
        with suppress(OSError):
            shutil.rmtree(folder)
