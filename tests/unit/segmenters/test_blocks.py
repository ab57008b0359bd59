"""Blocks of images that share a forward pass: every image once, of one size, always as many."""

from hypothesis import given
from hypothesis import strategies as st

from modeling.segmenters.blocks import block_name, block_size, blocks, filled


@given(st.lists(st.sampled_from(["a", "b", "c"])), st.integers(1, 5))
def test_every_image_is_in_one_block_of_its_size(sizes: list[str], block: int) -> None:
    found = list(blocks(sizes, block))
    assert sorted(index for indices in found for index in indices) == list(range(len(sizes)))
    for indices in found:
        assert len({sizes[index] for index in indices}) == 1
        whole = filled(indices, block)
        assert len(whole) == block and whole[: len(indices)] == indices and set(whole) == set(indices)


def test_a_block_is_an_image_on_a_cpu_and_a_part_of_the_fingerprint_elsewhere() -> None:
    assert [block_size(4, device) for device in ("cpu", "cuda", "cuda:1", "mps")] == [1, 4, 4, 4]
    assert [block_name(block_size(4, device)) for device in ("cpu", "cuda")] == ["", "-4"]
