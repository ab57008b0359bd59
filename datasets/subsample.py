"""A random part of a benchmark: whole scoring units, in the proportions of the groups that are reported.

What a scorer takes together (the two questions of an MME image, the passes of an MMBench question, the figures of a
HallusionBench set) stays together, so that the figures of a part are those of a table that holds nothing else. All
units have one order, which the seed and their names alone decide: a part is its beginning, so that a small one lies
within every larger one, on any machine and in any number of processes. In every beginning each group has its share of
the units, give or take one.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Collection, Mapping, Sequence

from .types import Record


def subsample(
    records: Sequence[Record],
    limit: int,
    seed: int,
    unit: Callable[[Record], str],
    groups: Callable[[Record], tuple[str, ...]],
) -> list[Record]:
    """Draw a part.

    Args:
        records: of the whole benchmark.
        limit: how many records at most; the first unit is drawn even if it has more.
        seed: another one draws another part.
        unit: name of what a record is scored together with.
        groups: what a record is reported under, coarse to fine and as many for each; a unit's are those of its first.
    Returns: the drawn records, in data order; all of them where the limit allows it.
    """
    if limit >= len(records):
        return list(records)
    members: dict[str, list[Record]] = {}
    for record in records:
        members.setdefault(unit(record), []).append(record)
    strata = {name: groups(found[0]) for name, found in members.items()}
    drawn: set[str] = set()
    room = limit
    for name in _order(members, strata, 0, str(seed)):
        room -= len(members[name])
        if drawn and room < 0:
            break
        drawn.add(name)
    return [record for record in records if unit(record) in drawn]


def _order(units: Collection[str], strata: Mapping[str, tuple[str, ...]], level: int, path: str) -> list[str]:
    """Shuffle units, each group of this and of finer levels spread evenly over the whole."""
    parts: dict[str, list[str]] = {}
    for name in units:
        if level == len(strata[name]):
            return sorted(units, key=lambda name: _digest(path, name))
        parts.setdefault(strata[name][level], []).append(name)
    return _spread({key: _order(part, strata, level + 1, f"{path}/{key}") for key, part in parts.items()}, path)


def _spread(parts: Mapping[str, Sequence[str]], path: str) -> list[str]:
    """Merge lists so that each has its share of every beginning, give or take less than one item.

    Item i of a list with n of the N items may stand at place ``i N / n`` or later, and must stand before
    ``(i + 1) N / n``; taking the most urgent item of those allowed succeeds (Baruah et al. 1996, Proportionate
    Progress).
    """
    total = sum(map(len, parts.values()))
    waiting = [(0, _digest(path, key), key, 0) for key in parts]
    heapq.heapify(waiting)
    ready: list[tuple[int, str, str, int]] = []
    merged: list[str] = []
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            _, chance, key, index = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(index + 1) * total // len(parts[key])), chance, key, index))
        _, chance, key, index = heapq.heappop(ready)
        merged.append(parts[key][index])
        if index + 1 < len(parts[key]):
            heapq.heappush(waiting, ((index + 1) * total // len(parts[key]), chance, key, index + 1))
    return merged


def _digest(path: str, name: str) -> str:
    return hashlib.sha256(f"{path}\0{name}".encode(errors="surrogatepass")).hexdigest()
