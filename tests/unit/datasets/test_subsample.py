"""Parts of a benchmark: nested, whole units, groups in proportion, the same in every process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation import evaluate, groups_of, unit_of
from datasets.subsample import subsample
from datasets.types import ImageFile, Record
from pipeline.catalog import load_catalog

ROOT = Path(__file__).resolve().parents[3]


def unit(record: Record) -> str:
    return str(record.meta["unit"])


def groups(record: Record) -> tuple[str, ...]:
    return (record.group, str(record.meta["kind"]))


def table(sizes: Sequence[tuple[str, str, int]], seed: int) -> list[Record]:
    """Units of these groups, kinds and numbers of records, shuffled."""
    found = [
        Record(id=f"{n}.{i}", image=None, fields={}, target=None, group=group, meta={"unit": n, "kind": kind})
        for n, (group, kind, size) in enumerate(sizes)
        for i in range(size)
    ]
    random.Random(seed).shuffle(found)
    return found


UNITS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(1, 4)), min_size=1, max_size=60)


@given(UNITS, st.integers(1, 80), st.integers(1, 80), st.integers(0, 3), st.integers(0, 99))
def test_parts_are_nested_and_whole(
    sizes: list[tuple[str, str, int]], one: int, two: int, seed: int, order: int
) -> None:
    records = table(sizes, order)
    small, large = (subsample(records, n, seed, unit, groups) for n in sorted((one, two)))
    assert {r.id for r in small} <= {r.id for r in large}
    for limit, part in zip(sorted((one, two)), (small, large), strict=True):
        counts = Counter(map(unit, part))
        assert all(counts[name] == size for name, size in Counter(map(unit, records)).items() if name in counts)
        assert len(part) <= limit or len(counts) == 1
        assert part == [r for r in records if unit(r) in counts], "in data order"
        assert part == records or len(part) + max(Counter(map(unit, records)).values()) > limit, "as many as fit"
    assert {r.id for r in small} == {
        r.id for r in subsample(table(sizes, order + 1), min(one, two), seed, unit, groups)
    }


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), min_size=1, max_size=80), st.data())
def test_every_group_has_its_share(sizes: list[tuple[str, str]], data: st.DataObject) -> None:
    records = table([(group, kind, 1) for group, kind in sizes], 0)
    part = subsample(records, data.draw(st.integers(1, len(records))), 0, unit, groups)
    for keep in (1, 2):  # groups exactly, kinds within what their group got
        whole, drawn = (Counter(groups(r)[:keep] for r in found) for found in (records, part))
        above, above_drawn = (Counter(groups(r)[: keep - 1] for r in found) for found in (records, part))
        for name, number in whole.items():
            share = above_drawn[name[:-1]] * number / above[name[:-1]]
            assert abs(drawn[name] - share) < 1


@pytest.mark.slow
def test_another_seed_draws_another_part_and_every_process_the_same() -> None:
    records = table([("a", "x", 1)] * 200, 0)
    parts = [[r.id for r in subsample(records, 20, seed, unit, groups)] for seed in (0, 1, 0)]
    assert parts[0] == parts[2] != parts[1]
    assert len({*parts[0]} & {*parts[1]}) < 10
    program = (
        "from tests.unit.datasets.test_subsample import groups, subsample, table, unit\n"
        "print([r.id for r in subsample(table([('a', 'x', 1)] * 200, 0), 20, 0, unit, groups)])"
    )
    for salt in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": salt}
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True)
        assert done.stdout.strip() == str(parts[0]), done.stderr


def mme() -> list[Record]:
    return [
        Record(
            id=f"{task}/{n}/{q}", image=ImageFile(Path(), f"{task}/{n}"), fields={}, target=("yes", "no")[q],
            group=task, meta={"pair": f"{task}/{n}"},
        )
        for task, number in (("existence", 30), ("color", 10), ("OCR", 20))
        for q in range(2)
        for n in range(number)
    ]  # fmt: skip


def mmbench() -> list[Record]:
    options = {"A": "cat", "B": "dog", "C": "cow"}
    return [
        Record(
            id=f"{n}/{turn}", image=ImageFile(Path(), str(n)), fields={}, target="ABC"[(n + turn) % 3],
            meta={"question": n, "pass": turn, "options": options, "category": f"c{n % 5}", "l2-category": f"l{n % 2}"},
        )
        for turn in range(3)
        for n in range(40)
    ]  # fmt: skip


def hallusion() -> list[Record]:
    return [
        Record(
            id=f"{category}/{part}/{number}/{question}/{figure}",
            image=None if category == "VS" and figure == 0 else ImageFile(Path(), f"{part}/{number}/{figure}"),
            fields={}, target=("yes", "no")[(question + figure) % 2],
            meta={
                "category": category, "subcategory": f"{category}_{part}", "set_id": str(number),
                "question_id": str(question), "figure_id": str(figure), "visual_input": str(min(figure, 2)),
                "reference": "",
            },
        )
        for figure in range(3)
        for question in range(2)
        for category, parts in (("VD", ("ocr", "math")), ("VS", ("map", "ocr")))
        for part in parts
        for number in range(6)
    ]  # fmt: skip


CASES = {
    "mme": (mme(), "pair"),
    "mmbench": (mmbench(), "question"),
    "hallusionbench": (hallusion(), "set_id"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("limit", [1, 8, 25, 60])
def test_figures_of_a_part_are_those_of_a_table_that_holds_nothing_else(name: str, limit: int) -> None:
    records, _ = CASES[name]
    benchmark = next(b for b in load_catalog().benchmarks.values() if b.name == name)
    replies = {r.id: random.Random(r.id).choice([str(r.target), "no", "B"]) for r in records}
    part = subsample(records, limit, 0, unit_of(benchmark), groups_of(benchmark))
    drawn = {r.id for r in part}
    rest = [r for r in records if r.id not in drawn]
    inside, beside = ({unit_of(benchmark)(r) for r in found} for found in (part, rest))
    assert not inside & beside

    def paired(found: list[Record]) -> dict[str, Any]:
        metrics = evaluate(benchmark, [(r, replies[r.id]) for r in found]).metrics
        return {f"{m.group}/{m.name}": (m.value, m.num) for m in metrics}

    # what is scored together is scored alike in the part and in the whole: pairs, questions and figures add up
    whole, one, other = paired(records), paired(part), paired(rest)
    for figure in ("acc_plus", "circular_accuracy", "qAcc", "fAcc"):
        for key in [key for key in whole if key.endswith(f"/{figure}") and key in one]:
            right = [
                value * num for value, num in (one[key], other.get(key, (None, 0)), whole[key]) if value is not None
            ]
            assert one[key][1] + other.get(key, (None, 0))[1] == whole[key][1]
            assert sum(right[:-1]) == pytest.approx(right[-1])


def test_every_declared_benchmark_names_units_and_groups() -> None:
    for benchmark in load_catalog().benchmarks.values():
        record = Record(
            id="1", image=None, fields={}, target=None, group="g", meta={"skills": ["b", "a"], "class": "dog"}
        )
        assert isinstance(unit_of(benchmark)(record), str)
        named = groups_of(benchmark)(record)
        assert named[0] == "g" and all(isinstance(name, str) for name in named)
        if benchmark.name == "mathvista":
            assert "a+b" in named
        if benchmark.scorer == "per_class":
            assert named == ("g", "dog")


@pytest.mark.parametrize("sizes", [(5, 3, 2), (7, 2, 2, 1), (4, 4, 1)])
def test_every_beginning_holds_every_group_in_proportion(sizes: tuple[int, ...]) -> None:
    records = table([(name, "x", 1) for name, size in zip("abcd", sizes, strict=False) for _ in range(size)], 0)
    for seed in range(12):
        for limit in range(1, len(records)):
            drawn = Counter(record.group for record in subsample(records, limit, seed, unit, groups))
            for name, size in zip("abcd", sizes, strict=False):
                assert abs(drawn[name] - limit * size / len(records)) < 1, (seed, limit, name)


def test_the_first_unit_is_drawn_even_if_it_is_larger_than_the_limit() -> None:
    records = table([("a", "x", 3), ("a", "x", 3)], 0)
    for limit in (1, 2, 3):
        part = subsample(records, limit, 0, unit, groups)
        assert len(part) == 3 and len(set(map(unit, part))) == 1
