"""The order of the data: nothing repeated or skipped, the same for any number of processes and after any stop."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.instruct.order import DataOrder, adapter_of, adapter_step, epoch_permutation, share

PERMUTATION = [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
BATCHES = [[6, 5, 4], [3, 2, 0], [3, 1, 1]]
ADAPTERS = "iiviiiiiiiivvvivviiivvii"
seeds = st.integers(0, 2**63)


@st.composite
def orders(draw: st.DrawFn) -> DataOrder:
    lengths = np.array(draw(st.lists(st.integers(1, 9), min_size=1, max_size=40)), np.int64)
    return DataOrder(
        lengths=lengths,
        batch_size=draw(st.integers(1, 12)),
        seed=draw(seeds),
        num_epochs=draw(st.integers(1, 4)),
        chunk_batches=draw(st.integers(1, 5)),
    )


def batches(order: DataOrder) -> list[list[int]]:
    return [order.batch(step).tolist() for step in range(order.num_steps or 0)]


@given(st.integers(1, 200), seeds, st.integers(0, 5))
def test_an_epoch_has_every_sample_once(num: int, seed: int, epoch: int) -> None:
    order = epoch_permutation(num, seed, epoch)
    assert sorted(order) == list(range(num))
    assert order.tolist() == epoch_permutation(num, seed, epoch).tolist()


def test_epochs_and_seeds_differ_and_no_caller_changes_an_order() -> None:
    orders = [epoch_permutation(1000, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({order.tobytes() for order in orders}) == 9
    with pytest.raises(ValueError, match="read-only"):
        orders[0][:] = 0


def test_the_order_is_the_same_in_every_version() -> None:
    """Recorded once: a resumed run would go wrong if these ever changed."""
    assert epoch_permutation(10, 0, 0).tolist() == PERMUTATION
    order = DataOrder(lengths=np.arange(7), batch_size=3, seed=1)
    assert [order.batch(step).tolist() for step in range(3)] == BATCHES
    assert "".join(adapter_of(0, step)[0] for step in range(24)) == ADAPTERS


@given(orders())
def test_every_epoch_has_every_sample_once_in_full_batches(order: DataOrder) -> None:
    num, size = len(order.lengths), order.batch_size
    found = batches(order)
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    assert 1 <= len(found[-1]) <= size
    assert Counter(i for batch in found for i in batch) == dict.fromkeys(range(num), order.num_epochs)
    whole = [batch for step, batch in enumerate(found) if step * size // num == ((step + 1) * size - 1) // num]
    assert all(len(set(batch)) == len(batch) for batch in whole)
    seen: Counter[int] = Counter()
    for step, batch in enumerate(found):  # no sample is an epoch ahead
        seen.update(batch)
        assert max(seen.values()) <= ((step + 1) * size - 1) // num + 1


@given(orders(), st.data())
def test_a_run_goes_on_from_any_step_on_any_number_of_processes(order: DataOrder, data: st.DataObject) -> None:
    straight = batches(order)
    stop = data.draw(st.integers(0, len(straight)))
    worlds = [data.draw(st.integers(1, 6)) for _ in range(2)]
    resumed = DataOrder(**{name: getattr(order, name) for name in order.__dataclass_fields__})
    for world, source, steps in zip(worlds, (order, resumed), (range(stop), range(stop, len(straight))), strict=True):
        for step in steps:
            parts = [share(source.batch(step), rank, world) for rank in range(world)]
            assert {len(part) for part in parts} <= {len(straight[step]) // world, -(-len(straight[step]) // world)}
            joined = np.zeros(len(straight[step]), np.int64)
            for rank, part in enumerate(parts):
                joined[rank::world] = part
            assert joined.tolist() == straight[step]


@given(orders())
def test_batches_are_longest_first(order: DataOrder) -> None:
    for batch in batches(order):
        lengths = order.lengths[batch]
        assert (np.diff(lengths) <= 0).all()


def test_batches_of_a_chunk_are_sorted_and_then_shuffled() -> None:
    lengths = np.random.default_rng(0).permutation(1600)
    order = DataOrder(lengths=lengths, batch_size=8, seed=0, num_epochs=1, chunk_batches=50)
    for chunk in range(4):
        spans = [lengths[order.batch(step)] for step in range(chunk * 50, chunk * 50 + 50)]
        ranked = sorted(spans, key=lambda span: -span[0])
        assert all(before[-1] > after[0] for before, after in zip(ranked[:-1], ranked[1:], strict=True))
        places = [span[0] for span in spans]
        assert abs(np.corrcoef(places, range(50))[0, 1]) < 0.4


def padding(order: DataOrder) -> float:
    found = [order.lengths[order.batch(step)] for step in range(order.num_steps or 0)]
    return 1 - sum(span.sum() for span in found) / sum(span.max() * len(span) for span in found)


def test_grouping_saves_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 0.8, 10_000).astype(np.int64) + 1
    grouped, plain = (
        padding(DataOrder(lengths=lengths, batch_size=32, seed=0, num_epochs=1, chunk_batches=n)) for n in (50, 1)
    )
    assert plain > 0.6
    assert grouped < 0.15


def test_the_endless_stream_goes_on() -> None:
    finite = DataOrder(lengths=np.arange(10), batch_size=4, seed=3, num_epochs=2)
    endless = DataOrder(lengths=np.arange(10), batch_size=4, seed=3)
    assert endless.num_steps is None
    assert [endless.batch(step).tolist() for step in range(5)] == batches(finite)
    assert Counter(i for step in range(500) for i in endless.batch(step)) == dict.fromkeys(range(10), 200)


def test_steps_outside_the_run_are_refused() -> None:
    order = DataOrder(lengths=np.ones(10, np.int64), batch_size=4, seed=0, num_epochs=1)
    assert order.num_steps == 3
    assert len(order.batch(2)) == 2
    for step in (-1, 3):
        with pytest.raises(IndexError, match=f"step {step} is outside the 3 steps"):
            order.batch(step)


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"num_epochs": 0}, {"chunk_batches": 0}, {"seed": -1}])
def test_impossible_sizes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="count from 1, the seed from 0"):
        DataOrder(**{"lengths": np.ones(3, np.int64), "batch_size": 2, "seed": 0, **change})  # type: ignore[arg-type]
    for lengths in (np.ones(0, np.int64), np.ones((2, 2), np.int64)):
        with pytest.raises(ValueError, match="at least one sample"):
            DataOrder(lengths=lengths, batch_size=2, seed=0)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ValueError, match=f"process {rank} is none of {world}"):
        share(np.arange(4), rank, world)


@given(seeds, st.integers(0, 3000), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_a_step_counts_those_of_its_adapter(seed: int, step: int, part: float) -> None:
    drawn = [adapter_of(seed, earlier, part) for earlier in range(step + 1)]
    assert adapter_step(seed, step, part) == drawn[:-1].count(drawn[-1])


def test_both_adapters_come_at_their_shares() -> None:
    for part in (0.0, 0.25, 0.5, 1.0):
        drawn = [adapter_of(7, step, part) for step in range(8000)]
        assert abs(drawn.count("image_cit") / 8000 - part) < 0.02
    assert adapter_of(7, 1) == adapter_of(7, 1)
    assert len({tuple(adapter_of(seed, step) for step in range(64)) for seed in range(20)}) == 20
    with pytest.raises(ValueError, match="between 0 and 1"):
        adapter_of(0, 0, 1.5)


def test_steps_draw_independently() -> None:
    drawn = np.array([adapter_of(1, step) == "image_cit" for step in range(4096)])
    for lag in (1, 2, 1024):
        assert abs(np.corrcoef(drawn[lag:], drawn[:-lag])[0, 1]) < 0.06
