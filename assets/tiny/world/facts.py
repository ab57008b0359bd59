"""What can be asked about a scene, with answers that are right by construction and wrong ones for multiple choice.

A `Fact` is free of any language; ``wording`` puts it into words. Facts whose answer would be a matter of opinion (a
thing near the middle is neither left nor right) are not made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .glyphs import WORDS
from .scenes import COLOURS, GROUPS, SIGN, THINGS, Scene, Shape

_CLEAR = 0.14  # fraction of the image by which left and right, above and below must differ
_FARTHER = 1.4
_MOST = 7  # numbers that are offered: 1 to 7
CORNERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that is true of a scene.

    Attributes:
        kind: ``existence`` (yes, no), ``more`` (yes, no), ``count``, ``sum``, ``colour``, ``side`` (left, right),
            ``height`` (top, bottom), ``corner``, ``relation`` (left, right), ``beside``, ``nearest``, ``present``,
            ``text``, ``scene``.
        about: the classes asked about.
        answer: the right answer.
        wrong: other answers, all of them wrong; likely ones first.
    """

    kind: str
    about: tuple[str, ...]
    answer: str
    wrong: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AskedFact:
    """A fact with the place of its scene in the world."""

    scene: int
    fact: Fact


def facts(scene: Scene, rng: np.random.Generator) -> list[Fact]:
    """All facts of a scene, in an order that depends on the scene alone.

    Args:
        scene: drawn.
        rng: chooses among wrong answers.
    """
    makers: tuple[Callable[[Scene, np.random.Generator], Iterator[Fact]], ...]
    makers = (_existence, _present, _count, _sums, _colour, _places, _relations, _beside, _text, _scene)
    return [fact for maker in makers for fact in maker(scene, rng)]


def draw_facts(scenes: Sequence[Scene], rng: np.random.Generator, kinds: Iterable[str], num: int) -> list[AskedFact]:
    """Draw facts from all scenes: kinds in turn, and scenes that were asked least first.

    Args:
        scenes: of the world.
        rng: source of chance.
        kinds: wanted, each as often as the others as far as the scenes allow.
        num: how many; fewer where the scenes do not give so many.
    """
    pools: dict[str, list[AskedFact]] = {kind: [] for kind in kinds}
    for index, scene in enumerate(scenes):
        for fact in facts(scene, rng):
            if fact.kind in pools:
                pools[fact.kind].append(AskedFact(scene=index, fact=fact))
    for pool in pools.values():
        pool[:] = [pool[i] for i in rng.permutation(len(pool))]
    chosen: list[AskedFact] = []
    used: Counter[int] = Counter()
    said: Counter[tuple[str, str]] = Counter()
    while len(chosen) < num and any(pools.values()):
        for kind, pool in pools.items():
            if pool and len(chosen) < num:
                best = min(range(len(pool)), key=lambda i: (said[kind, pool[i].fact.answer], used[pool[i].scene]))
                asked = pool.pop(best)
                used[asked.scene] += 1
                said[kind, asked.fact.answer] += 1
                chosen.append(asked)
    return chosen


def absent_classes(scene: Scene) -> list[str]:
    """Classes that are not in a scene, those that could be expected there first."""
    return sorted((name for name in THINGS if name not in scene.counts), key=lambda name: name not in _likely(scene))


def _likely(scene: Scene) -> tuple[str, ...]:
    return GROUPS.get(scene.group, ())


def _shuffled(items: Iterable[str], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(item) for item in rng.permutation(list(items)))


def _existence(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    for name in scene.counts:
        yield Fact(kind="existence", about=(name,), answer="yes", wrong=("no",))
    for name in absent_classes(scene)[: len(scene.counts)]:
        yield Fact(kind="existence", about=(name,), answer="no", wrong=("yes",))


def _present(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    for name in scene.counts:
        yield Fact(kind="present", about=(), answer=name, wrong=tuple(absent_classes(scene)))


def _count(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    for name, count in scene.counts.items():
        yield Fact(kind="count", about=(name,), answer=str(count), wrong=_numbers(count, rng))


def _numbers(right: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Other numbers, near ones first."""
    return tuple(
        sorted(
            _shuffled((str(n) for n in range(1, max(_MOST, right + 2)) if n != right), rng),
            key=lambda number: abs(int(number) - right) > 2,
        )
    )


def _sums(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    names = list(scene.counts)
    for first, second in zip(names, names[1:], strict=False):
        total = scene.counts[first] + scene.counts[second]
        yield Fact(kind="sum", about=(first, second), answer=str(total), wrong=_numbers(total, rng))
        more = scene.counts[first] > scene.counts[second]
        yield Fact(kind="more", about=(first, second), answer=_yes(more), wrong=(_yes(not more),))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _colour(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    for thing in scene.single:
        wrong = _shuffled((name for name in COLOURS if name != thing.colour), rng)
        yield Fact(kind="colour", about=(thing.name,), answer=thing.colour, wrong=wrong)


def _places(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    """Where a thing is that is alone of its class."""
    for thing in scene.single:
        x, y = (middle - 0.5 for middle in thing.centre)
        words = []
        for kind, offset, low, high in (("height", y, "top", "bottom"), ("side", x, "left", "right")):
            if abs(offset) >= _CLEAR:
                right, wrong = (low, high) if offset < 0 else (high, low)
                words.append(right)
                yield Fact(kind=kind, about=(thing.name,), answer=right, wrong=(wrong,))
        if len(words) == 2:
            corner = " ".join(words)
            others = _shuffled((name for name in CORNERS if name != corner), rng)
            yield Fact(kind="corner", about=(thing.name,), answer=corner, wrong=others)


def _relations(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    """Left or right of another thing."""
    for first, second in zip(scene.single, scene.single[1:], strict=False):
        distance = first.centre[0] - second.centre[0]
        if abs(distance) >= _CLEAR:
            right, wrong = ("left", "right") if distance < 0 else ("right", "left")
            yield Fact(kind="relation", about=(first.name, second.name), answer=right, wrong=(wrong,))


def _beside(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    """Which class is left of a thing, and which is nearest to it."""
    for thing in scene.single:
        others = [name for name in scene.counts if name != thing.name]
        leftmost = {name: min(s.centre[0] for s in scene.things if s.name == name) for name in others}
        for name in others:
            if leftmost[name] <= thing.centre[0] - _CLEAR:
                wrong = [o for o in others if leftmost[o] >= thing.centre[0]] + absent_classes(scene)
                yield Fact(kind="beside", about=(thing.name,), answer=name, wrong=tuple(wrong))
        gaps = sorted((min(_gap(thing, s) for s in scene.things if s.name == name), name) for name in others)
        if gaps:
            far = [name for gap, name in gaps[1:] if gap >= _FARTHER * gaps[0][0]]
            yield Fact(kind="nearest", about=(thing.name,), answer=gaps[0][1], wrong=tuple(far + absent_classes(scene)))


def _gap(one: Shape, other: Shape) -> float:
    return float(np.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]))


def _text(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    for thing in scene.things:
        if thing.text:
            similar = WORDS if thing.text in WORDS else tuple(str(n) for n in range(10))
            wrong = _shuffled((text for text in similar if text != thing.text), rng)
            yield Fact(kind="text", about=(SIGN,), answer=thing.text, wrong=wrong)


def _scene(scene: Scene, rng: np.random.Generator) -> Iterator[Fact]:
    if scene.group in GROUPS:
        wrong = tuple(name for name in GROUPS if name != scene.group)
        yield Fact(kind="scene", about=(), answer=scene.group, wrong=wrong)
