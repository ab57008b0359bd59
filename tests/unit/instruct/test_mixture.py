"""Weights of sources: how often a pass takes each sample, and which are held out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.instruct.mixture import Mixture, SourcePart, is_held_out, random_subset
from datasets.instruct.order import adapter_of, image_steps, steps_until


def test_a_source_alone_is_taken_as_it_is() -> None:
    mixture = Mixture(parts=[SourcePart(name="a", size=7)], seed=3)
    slots = np.arange(7)
    assert mixture.num_slots == 7 and (mixture.samples(slots, 5) == slots).all()


@given(
    parts=st.lists(st.tuples(st.integers(1, 9), st.floats(0.05, 4)), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_a_pass_takes_each_sample_as_often_as_its_weight_says(parts: list[tuple[int, float]], seed: int) -> None:
    made = [SourcePart(name=str(n), size=size, weight=weight) for n, (size, weight) in enumerate(parts)]
    mixture = Mixture(parts=made, seed=seed)
    passes = 60
    taken = Counter(int(i) for n in range(passes) for i in mixture.samples(np.arange(mixture.num_slots), n))
    first = 0
    for part in made:
        counts = [taken[first + i] for i in range(part.size)]
        assert sum(counts) == passes * part.slots
        assert max(counts) - min(counts) <= 1  # all are taken equally often in the long run
        assert abs(part.slots - part.weight * part.size) <= 1
        assert mixture.name(first) == mixture.name(first + part.size - 1) == part.name
        first += part.size
    assert mixture.passes(passes * mixture.num_slots) == {
        part.name: pytest.approx(passes * part.slots / part.size) for part in made
    }


def test_a_smaller_part_lies_within_a_larger_one() -> None:
    parts = [set(random_subset(100, most, 1, 0).tolist()) for most in (5, 20, None)]
    assert parts[0] < parts[1] < parts[2] and [len(part) for part in parts] == [5, 20, 100]


def test_what_is_held_out_follows_from_the_images_name_alone() -> None:
    names = [f"{n:012d}.jpg" for n in range(4000)]
    held = [name for name in names if is_held_out(name, 0.1, 0)]
    assert 300 < len(held) < 500
    assert all(is_held_out(f"coco/train2017/{name}", 0.1, 0) for name in held)
    assert set(held) < {name for name in names if is_held_out(name, 0.2, 0)}
    assert not any(is_held_out(name, 0.0, 0) for name in names)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_steps_until_an_adapter_was_trained_so_often(share: float) -> None:
    drawn_steps = [adapter_of(2, step, share) for step in range(3000)]
    assert image_steps(2, 3000, share) == drawn_steps.count("image_cit")
    for wanted in (1, 7, 100):
        steps = steps_until("vl_cit", wanted, 2, share)
        assert drawn_steps[:steps].count("vl_cit") == wanted and drawn_steps[steps - 1] == "vl_cit"
