"""Attention over a shared prefix and suffixes, against one softmax over all keys in float64."""

import pytest
import torch
from torch import Tensor, nn

from modeling.shared_prefix import Prefix, SharedPrefixCache, _attend_by_products, attend, join, shared_prefix_attention

HEADS, KV_HEADS, WIDTH = 4, 2, 8


class Layer(nn.Module):
    """Stands for the attention of the first decoder layer."""

    layer_idx = 0


def whole(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """One softmax over all keys, in float64."""
    groups = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double(), value.double()
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * WIDTH**-0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.softmax(scores, -1) @ value


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_two_parts_joined_are_one_softmax(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, HEADS, 5, WIDTH, dtype=dtype)
    key, value = torch.randn(2, 3, KV_HEADS, 40, WIDTH, dtype=dtype)
    parts = [attend(query, key[:, :, s], value[:, :, s], WIDTH**-0.5) for s in (slice(0, 33), slice(33, 40))]
    joined = join(*parts[0], *parts[1])
    assert joined.dtype == dtype
    assert (joined - whole(query, key, value)).abs().max() < tolerance
    assert torch.allclose(joined, join(*parts[1], *parts[0]), atol=tolerance), (
        "the order of the parts matters by rounding alone"
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_products_equal_the_fused_kernel(causal: bool, masked: bool) -> None:
    """What other devices run, against what the CPU runs."""
    torch.manual_seed(0)
    query = torch.randn(2, HEADS, 6, WIDTH)
    key, value = torch.randn(2, 2, KV_HEADS, 6, WIDTH)
    mask = torch.zeros(2, 1, 1, 6).masked_fill_(torch.arange(6) == 4, float("-inf")) if masked else None
    fused = attend(query, key, value, WIDTH**-0.5, causal=causal, mask=mask)
    plain = _attend_by_products(query, key, value, WIDTH**-0.5, causal=causal, mask=mask)
    for ours, theirs in zip(plain, fused, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_blocks_of_prompts_and_steps_equal_whole_sequences() -> None:
    """Three questions on two images, two beams, prompts' ends of 3, 5 and 1 tokens, two steps with reordered beams."""
    torch.manual_seed(0)
    layer, beams, lengths = Layer(), 2, (3, 5, 1)
    prefixes = [Prefix(((torch.randn(1, KV_HEADS, n, WIDTH), torch.randn(1, KV_HEADS, n, WIDTH)),)) for n in (20, 11)]
    mine = [prefixes[0], prefixes[0], prefixes[1]]
    cache = SharedPrefixCache(mine, num_rows=8, num_beams=beams, prompt_slots=8, new_slots=3)
    history: list[tuple[Tensor, Tensor]] = []  # keys and values of each row, one softmax's worth
    for number, length in enumerate(lengths):
        query, key, value = (torch.randn(1, heads, length, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS))
        cache.read_prompt(number, length)
        out, _ = shared_prefix_attention(layer, query, *cache.update(key, value, 0), None, WIDTH**-0.5, shared=cache)
        keys, values = (torch.cat([old, new], 2) for old, new in zip(mine[number].layers[0], (key, value), strict=True))
        seen = torch.ones(length, keys.shape[2], dtype=torch.bool).tril(mine[number].length)
        torch.testing.assert_close(out.double(), whole(query, keys, values, seen).transpose(1, 2), atol=2e-6, rtol=1e-5)
        history += [(keys, values)] * beams
    parents = torch.tensor([1, 1, 2, 3, 5, 4, 6, 7])  # within each question
    for step in range(2):
        cache.reorder(parents, step)
        history = [history[parent] for parent in parents[:6]]
        query, key, value = (torch.randn(8, heads, 1, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS))
        cache.decode(step)
        out, _ = shared_prefix_attention(layer, query, *cache.update(key, value, 0), None, WIDTH**-0.5, shared=cache)
        history = [
            (torch.cat([k, key[row, None]], 2), torch.cat([v, value[row, None]], 2))
            for row, (k, v) in enumerate(history)
        ]
        for row, (keys, values) in enumerate(history):
            expected = whole(query[row, None], keys, values).transpose(1, 2)[0]
            torch.testing.assert_close(out[row].double(), expected, atol=2e-6, rtol=1e-5)


def test_prefixes_are_not_copied() -> None:
    """However many questions and beams read a prefix, the cache holds suffixes alone."""
    prefix = Prefix(((torch.randn(1, KV_HEADS, 1000, WIDTH), torch.randn(1, KV_HEADS, 1000, WIDTH)),))
    cache = SharedPrefixCache([prefix] * 5, num_rows=16, num_beams=3, prompt_slots=32, new_slots=5)
    assert cache.num_bytes == 2 * 16 * KV_HEADS * 37 * WIDTH * 4 < prefix.num_bytes
    assert len(cache.spans) == 1
