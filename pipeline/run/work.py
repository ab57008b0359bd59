"""Work that moves while a run goes on: a process that has finished takes over what others have left.

Every process starts with a share of its own (``pipeline/run/questions.py``), cut into chunks. Before it answers a
chunk, of its own or of another process, it claims it: it makes an empty file whose name says which one, in a folder
beside the journals, and only one process can be the one that made it (``O_EXCL``, which NFS has, too, since version 3).
So each chunk is answered once, nobody waits for anybody, and no process needs to know how fast the others are.

Claims are of one session: a folder's name holds the session's token, and a rerun divides anew what has no answer, also
what a killed process had claimed. Processes that do not see each other's files (machines without a common file system)
keep to the shares that they started with.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..runtime.files import make_folder, writing
from ..runtime.session import Session
from .questions import Question, chunks, cost

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
        with writing(file):
            try:
                os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                return False
        return True

    def taken(self) -> set[str]:
        """Names that have been claimed, as far as this machine knows: a network file system may be behind."""
        with writing(self._folder):
            return set(os.listdir(self._folder))


class WorkQueue:
    """The questions that one process answers: its own share, then what it can take over from others.

    Args:
        shares: of all processes, see `divide`.
        rank: of this one.
        members: processes that share its folder, this one included.
        claims: of these processes; not needed where it is the only member.
        changed: told how many questions this process answers, as far as can be known, whenever that changes.
    """

    def __init__(
        self,
        shares: Sequence[Sequence[Question]],
        rank: int,
        members: Sequence[int],
        claims: ClaimFolder | None,
        changed: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._rank, self._claims, self._changed = rank, claims, changed
        self._chunks = {member: chunks(shares[member]) for member in members}
        self._gone: set[str] = set()
        self._expected = len(shares[rank])

    def __iter__(self) -> Iterator[Question]:
        """Hand out questions; a chunk is claimed when its first question is asked for."""
        for index, chunk in enumerate(self._chunks[self._rank]):
            if self._claim(self._rank, index):
                yield from chunk
            else:
                self._expect(-len(chunk))
        while (found := self._last_left()) is not None:
            rank, index = found
            if self._claim(rank, index):
                self._expect(len(self._chunks[rank][index]))
                yield from self._chunks[rank][index]

    def _claim(self, rank: int, index: int) -> bool:
        name = _name(rank, index)
        self._gone.add(name)
        return self._claims is None or self._claims.claim(name)

    def _last_left(self) -> tuple[int, int] | None:
        """The last chunk of the process that has most left; None where nothing is left."""
        if self._claims is None:
            return None
        self._gone |= self._claims.taken()
        left = {
            rank: [index for index in range(len(own)) if _name(rank, index) not in self._gone]
            for rank, own in self._chunks.items()
        }
        rank = max(left, key=lambda r: sum(cost(self._chunks[r][index]) for index in left[r]))
        return (rank, left[rank][-1]) if left[rank] else None

    def _expect(self, more: int) -> None:
        self._expected += more
        self._changed(self._expected)


def _name(rank: int, index: int) -> str:
    return f"{rank}-{index}"


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
    with writing(file):
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
