"""X-Decoder's image preparation, prompts and post-processing against rules written out a second time, slowly."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling.segmenters.base import PanopticMap
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.xdecoder import postprocess
from modeling.segmenters.xdecoder.config import TextConfig
from modeling.segmenters.xdecoder.postprocess import MaskSizes, SegmentRules, panoptic_map, resize_masks
from modeling.segmenters.xdecoder.preprocess import ResizeRule, normalise_and_pad, padded_size
from modeling.segmenters.xdecoder.prompts import (
    PromptTable,
    TokenizerReader,
    class_embeddings,
    prompt_names,
    prompt_reader,
)
from modeling.segmenters.xdecoder.text import TextEncoder


def slow_map(logits: Tensor, masks: Tensor, rules: SegmentRules) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Pixel by pixel: the id map and (id, class) of the segments."""
    queries, height, width = masks.shape
    background = logits.shape[1] - 1
    best = logits.softmax(-1).max(-1)
    kept = [q for q in range(queries) if int(best.indices[q]) != background and best.values[q] > rules.threshold]
    probabilities = masks.sigmoid()
    ids = [[0] * width for _ in range(height)]
    places = [(y, x) for y in range(height) for x in range(width)]
    wins: dict[int, list[tuple[int, int]]] = {q: [] for q in kept}
    for y, x in places if kept else []:
        values = [float(best.values[q] * probabilities[q, y, x]) for q in kept]
        wins[kept[values.index(max(values))]].append((y, x))
    segments: list[tuple[int, int]] = []
    for query in kept:
        label = int(best.indices[query])
        area = sum(bool(probabilities[query, y, x] >= 0.5) for y, x in places)
        final = [(y, x) for y, x in wins[query] if probabilities[query, y, x] >= 0.5]
        if not final or Fraction(len(wins[query]), area) < Fraction(str(rules.overlap)):
            continue
        same = [number for number, category in segments if category == label and not rules.is_thing[label]]
        number = same[0] if same else len(segments) + 1
        if not same:
            segments.append((number, label))
        for y, x in final:
            ids[y][x] = number
    return ids, segments


def plain(panoptic: PanopticMap) -> tuple[list[list[int]], list[tuple[int, int]]]:
    return panoptic.id_map.tolist(), [(segment.id, segment.category_id) for segment in panoptic.segments]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("chunk", [1, 2**24])
def test_maps_equal_the_slow_rule(seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when every query is a chunk of its own."""
    monkeypatch.setattr(postprocess, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(10, 5, generator=generator)
    masks = 2 * torch.randn(10, 7, 6, generator=generator)
    masks += 3 * torch.randn(10, 1, 6, generator=generator)
    rules = SegmentRules(
        is_thing=(True, False, True, False), threshold=0.3 + 0.05 * (seed % 3), overlap=0.2 * (seed % 4)
    )
    assert plain(panoptic_map(logits, masks, rules)) == slow_map(logits, masks, rules)


def test_equal_queries_give_their_pixels_to_the_first_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks = torch.tensor([[9.0, 0, 0]] * 3), torch.ones(3, 4, 4)
    rules = SegmentRules(is_thing=(True, True))
    for chunk in (1, 32, 2**24):
        monkeypatch.setattr(postprocess, "CHUNK_ELEMENTS", chunk)
        assert plain(panoptic_map(logits, masks, rules)) == ([[1] * 4] * 4, [(1, 0)])


def test_a_share_equal_to_the_threshold_stays() -> None:
    """Query 0 wins four of its five pixels, the least that 0.8 lets pass; three of four are too few."""
    masks = torch.full((2, 1, 6), -9.0)
    masks[0, 0, :5], masks[1, 0, 4:] = 2.0, 9.0
    logits = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])
    rules = SegmentRules(is_thing=(True, True))
    assert plain(panoptic_map(logits, masks, rules)) == ([[1, 1, 1, 1, 2, 2]], [(1, 0), (2, 1)])
    assert plain(panoptic_map(logits, masks[:, :, 1:], rules)) == ([[0, 0, 0, 1, 1]], [(1, 1)])


@pytest.mark.parametrize("image", [(64, 64), (64, 1), (1, 64), (33, 50)])
@pytest.mark.parametrize("result", [(35, 35), (1, 1), (90, 3)])
def test_chunks_change_nothing_at_any_size(
    image: tuple[int, int], result: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    logits, masks = 6 * torch.randn(9, 4, generator=generator), 4 * torch.randn(9, 16, 16, generator=generator)
    sizes = MaskSizes(padded=(64, 64), image=image, result=result)
    rules = SegmentRules(is_thing=(True, True, False), threshold=0.4, overlap=0.1)
    whole = panoptic_map(logits, masks, rules, sizes)
    monkeypatch.setattr(postprocess, "CHUNK_ELEMENTS", 1)
    assert plain(panoptic_map(logits, masks, rules, sizes)) == plain(whole)
    assert whole.id_map.shape == result
    assert whole.id_map.dtype == np.int32
    assert plain(whole) == slow_map(logits, resize_masks(masks, sizes), rules)


def test_half_precision_predictions_are_raised_before_any_rule() -> None:
    generator = torch.Generator().manual_seed(5)
    logits, masks = 6 * torch.randn(6, 4, generator=generator), 4 * torch.randn(6, 8, 8, generator=generator)
    logits, masks = logits.bfloat16(), masks.bfloat16()
    sizes = MaskSizes(padded=(32, 32), image=(30, 20), result=(12, 12))
    rules = SegmentRules(is_thing=(True, True, False), threshold=0.4, overlap=0.1)
    found = plain(panoptic_map(logits, masks, rules, sizes))
    assert found == plain(panoptic_map(logits.float(), masks.float(), rules, sizes))
    assert found[1], "a map that is empty proves little"


def slow_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """The evaluation rule in exact fractions."""
    scale = min(Fraction(short_side, min(height, width)), Fraction(long_side, max(height, width)))
    new = [max(1, math.floor(side * scale + Fraction(1, 2))) for side in (height, width)]
    return new[0], new[1]


def test_sizes_follow_the_rule_for_every_shape() -> None:
    """Exact halves aside, where floating point decides, as in the reference."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 4000), (4000, 1), (2, 3), (30000, 20000), (1333, 800), (1334, 800)]
    shapes += [tuple(pair) for pair in rng.integers(1, 5000, (300, 2)).tolist()]
    for height, width in shapes:
        exact = 800 * Fraction(max(height, width), min(height, width))
        if exact <= 1333 and (2 * exact).denominator == 1 and exact.denominator == 2:
            continue
        assert ResizeRule().size(height, width) == slow_size(height, width, 800, 1333), (height, width)


def test_the_demo_rule_cuts_down_and_knows_no_limit() -> None:
    rule = ResizeRule.named("demo")
    assert rule.size(480, 640) == (512, 682)  # 682.67
    assert rule.size(100, 1000) == (512, 5120)
    with pytest.raises(ValueError, match=r"1x4000 pixels would become .* limit SEGMENTER.LONG_SIDE"):
        ResizeRule.named("demo", short_side=512).size(1, 4000)
    with pytest.raises(ValueError, match="no rule 'demos'"):
        ResizeRule.named("demos")
    with pytest.raises(ValueError, match="at least 1"):
        ResizeRule.named("evaluation", short_side=0)


@pytest.mark.parametrize("shape", [(1, 90), (90, 1), (3, 1), (1, 1)])
def test_thin_images_keep_their_colours(shape: tuple[int, int]) -> None:
    """One colour stays that colour, and the padding next to it is zero."""
    pixels = np.full((*shape, 3), (10, 200, 30), np.uint8)
    resized = ResizeRule(short_side=32, long_side=50).resize(pixels)
    assert (resized == (10, 200, 30)).all()
    height, width = resized.shape[:2]
    padded = padded_size((height, width), 32)
    assert padded[0] % 32 == padded[1] % 32 == 0
    batch = normalise_and_pad([resized], (10, 100, 30), (1, 50, 1), padded)
    assert batch.shape == (1, 3, *padded)
    assert (batch[0, :, :height, :width] == torch.tensor([0.0, 2.0, 0.0]).view(3, 1, 1)).all()
    assert batch[0, :, height:].abs().sum() + batch[0, :, :, width:].abs().sum() == 0


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_pixels_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected RGB pixels"):
        ResizeRule().resize(wrong)


def test_names_lose_their_suffixes_in_order() -> None:
    assert prompt_names(["sky-other-merged", "door-stuff", "floor-wood"]) == ["sky", "door", "floor-wood", "background"]


def test_long_prompts_are_cut_and_keep_their_end() -> None:
    table = PromptTable.load()
    whole, cut = table.ids(["teddy bear"], 77), table.ids(["teddy bear"], 7)
    assert cut.shape == (1, 81, 7)
    for long, short in zip(whole[0].tolist(), cut[0].tolist(), strict=True):
        prompt = long[1 : long.index(table.eos)]
        expected = [table.bos, *prompt[:5], table.eos]
        assert short == expected + [table.eos] * (7 - len(expected))


def test_unknown_names_ask_for_a_tokenizer(tmp_path: Path) -> None:
    table = PromptTable.load()
    assert prompt_reader(["dog", "background"], table, "") is table
    with pytest.raises(SegmenterError, match="SEGMENTER.TOKENIZER"):
        prompt_reader(["unicorn"], table, "")
    with pytest.raises(SegmenterError, match="is no directory"):
        prompt_reader(["unicorn"], table, str(tmp_path / "no"))
    with pytest.raises(SegmenterError, match="cannot be read"):
        prompt_reader(["unicorn"], table, str(tmp_path))
    with pytest.raises(SegmenterError, match="'unicorn'"):
        table.ids(["dog", "unicorn"], 77)


class Letters:
    """A tokenizer of letters: the alphabet's position from 0, begin 30, end 31."""

    def __init__(self, end: int = 31) -> None:
        self.end = end

    def __call__(self, prompts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        assert truncation
        rows = [[30, *[ord(c) - 97 for c in prompt if c.isalpha()][: max_length - 2], self.end] for prompt in prompts]
        return {"input_ids": rows}


def test_a_tokenizer_reads_other_names() -> None:
    ids = TokenizerReader(Letters(), ["{}.", "a {}."]).ids(["cab", "abc"], 5)
    assert ids.tolist() == [[[30, 2, 0, 1, 31], [30, 0, 2, 0, 31]], [[30, 0, 1, 2, 31], [30, 0, 0, 1, 31]]]
    short = TokenizerReader(Letters(), ["{}.", "a {}."]).ids(["b"], 5)
    assert short.tolist() == [[[30, 1, 31, 31], [30, 0, 1, 31]]]
    with pytest.raises(SegmenterError, match="largest id at the end"):
        TokenizerReader(Letters(end=29), ["{}."]).ids(["b"], 5)


@pytest.fixture
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    config = TextConfig(
        vocab_size=20, context_length=8, width=16, num_heads=2, num_layers=2, bos_id=18, eos_id=19, pad_id=19
    )
    return TextEncoder(config, 12).eval()


@torch.no_grad()
def test_padding_and_length_change_no_vector(encoder: TextEncoder) -> None:
    """Nothing sees what follows; the vector is read at the first end token."""
    short = torch.tensor([[18, 3, 19]])
    padded = torch.tensor([[18, 3, 19, 19, 19, 19, 19, 19]])
    junk = torch.tensor([[18, 3, 19, 5, 7, 1, 0, 19]])
    for other in (padded, junk):
        torch.testing.assert_close(encoder(other), encoder(short), atol=1e-6, rtol=0)


@torch.no_grad()
def test_class_embeddings_do_not_depend_on_the_chunks(encoder: TextEncoder) -> None:
    ids = torch.randint(0, 19, (5, 3, 6), generator=torch.Generator().manual_seed(0))
    ids[:, :, 0], ids[:, :, -1] = 18, 19
    whole = class_embeddings(encoder, ids)
    torch.testing.assert_close(whole, class_embeddings(encoder, ids, chunk=2), atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(5), atol=1e-6, rtol=0)
    vectors = encoder(ids[2])
    mean = (vectors / vectors.norm(dim=-1, keepdim=True)).mean(dim=0)
    torch.testing.assert_close(whole[2], mean / mean.norm(), atol=1e-5, rtol=0)


def test_ids_that_the_encoder_cannot_read_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="prompts of 9 tokens"):
        encoder(torch.zeros(1, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="token id 20"):
        encoder(torch.tensor([[18, 20, 19]]))
