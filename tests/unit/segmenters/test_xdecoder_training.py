"""Training of X-Decoder: matching, losses and points against written-out formulas; a few images learned by heart."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from assets.tiny.world import draw_scene
from modeling.segmenters.coco import INDEX_BY_NAME
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.xdecoder.config import (
    BackboneConfig,
    DecoderConfig,
    PixelDecoderConfig,
    TextConfig,
    XDecoderConfig,
)
from modeling.segmenters.xdecoder.criterion import (
    Criterion,
    Target,
    classification,
    cross_entropy,
    dice_loss,
    num_matched,
)
from modeling.segmenters.xdecoder.decoder import QueryPrediction
from modeling.segmenters.xdecoder.matching import match_queries, matching_costs
from modeling.segmenters.xdecoder.model import XDecoderOutput
from modeling.segmenters.xdecoder.points import at_points, draw_points, labels_at_points, least_certain
from modeling.segmenters.xdecoder.postprocess import MaskSizes, SegmentRules, panoptic_map
from modeling.segmenters.xdecoder.prompts import PromptTable, class_embeddings, prompt_names
from modeling.segmenters.xdecoder.training import XDecoderInTraining, fresh_network
from modeling.segmenters.xdecoder.training_options import XDecoderTrainingConfig
from tests.limits import examples


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 5))
@settings(max_examples=examples(60))
def test_the_assignment_is_the_cheapest_of_all(seed: int, num_queries: int, num_segments: int) -> None:
    cost = torch.rand(num_queries, num_segments, generator=seeded(seed))
    queries, segments = match_queries(cost)
    few = min(num_queries, num_segments)
    assert len(set(queries.tolist())) == len(set(segments.tolist())) == len(queries) == few
    chosen = cost[queries, segments].sum()
    ways = (
        cost[list(q), list(s)].sum()
        for q in itertools.permutations(range(num_queries), few)
        for s in itertools.combinations(range(num_segments), few)
    )
    assert float(chosen) == pytest.approx(float(min(ways, default=torch.zeros(()))), abs=1e-6)


def test_a_cost_that_is_no_number_does_not_end_the_run() -> None:
    queries, segments = match_queries(torch.tensor([[math.nan, 1.0], [2.0, math.inf], [0.5, 3.0]]))
    assert sorted(zip(queries.tolist(), segments.tolist(), strict=True)) == [(0, 1), (2, 0)]


def test_costs_are_those_of_the_formulas() -> None:
    generator = seeded(1)
    logits, masks = torch.randn(3, 5, generator=generator), torch.randn(3, 7, generator=generator) * 3
    labels, truth = torch.tensor([2, 0]), (torch.rand(2, 7, generator=generator) < 0.5).float()
    found = matching_costs(logits, masks, labels, truth, (2.0, 5.0, 3.0))
    for q, n in itertools.product(range(3), range(2)):
        scores = [math.exp(value) for value in logits[q].tolist()]
        chance = [1 / (1 + math.exp(-value)) for value in masks[q].tolist()]
        inside = truth[n].tolist()
        pairs = list(zip(chance, inside, strict=True))
        entropy = -sum(math.log(p) if t else math.log(1 - p) for p, t in pairs) / 7
        dice = 1 - (2 * sum(p * t for p, t in pairs) + 1) / (sum(chance) + sum(inside) + 1)
        expected = -2 * scores[int(labels[n])] / sum(scores) + 5 * entropy + 3 * dice
        assert float(found[q, n]) == pytest.approx(expected, abs=1e-5)


def test_mask_losses_are_those_of_the_formulas() -> None:
    masks, truth = torch.randn(4, 9, generator=seeded(2)) * 4, (torch.rand(4, 9, generator=seeded(3)) < 0.4).float()
    p, t = masks.double().sigmoid().numpy(), truth.double().numpy()
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=1).sum()
    dice = (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).sum()
    assert float(cross_entropy(masks, truth)) == pytest.approx(entropy, rel=1e-5)
    assert float(dice_loss(masks, truth)) == pytest.approx(dice, rel=1e-5)


def test_the_class_loss_is_weighted_cross_entropy_and_focal_where_asked() -> None:
    logits, labels = torch.randn(2, 6, 4, generator=seeded(4)), torch.randint(0, 4, (2, 6), generator=seeded(5))
    weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight, reduction="sum")
    assert float(classification(logits, labels, no_object=0.1, gamma=0.0)) == pytest.approx(float(plain), rel=1e-5)
    right = logits.softmax(-1).gather(-1, labels[..., None])[..., 0]
    focal = -(weight[labels] * (1 - right) ** 2 * right.log()).sum()
    assert float(classification(logits, labels, no_object=0.1, gamma=2.0)) == pytest.approx(float(focal), rel=1e-5)


def test_points_read_maps_between_pixels_and_labels_of_the_pixel_they_lie_in() -> None:
    ramp = torch.arange(8.0).expand(5, 8)[None, None]  # the value of column c is c, its middle at (c + 1/2) / 8
    points = torch.tensor([[[0.5 / 8, 0.1], [3.5 / 8, 0.9], [4.0 / 8, 0.5], [0.0, 0.0], [1.0, 1.0]]])
    assert at_points(ramp, points)[0, 0].tolist() == pytest.approx([0.0, 3.0, 3.5, 0.0, 7.0], abs=1e-5)
    labels = torch.arange(40).view(5, 8)
    places = torch.tensor([[0.0, 0.0], [0.99, 0.99], [1.0, 1.0], [3.2 / 8, 2.7 / 5]])
    assert labels_at_points(labels, places).tolist() == [0, 39, 39, 2 * 8 + 3]


def test_the_least_certain_candidates_are_taken() -> None:
    masks, candidates = torch.randn(3, 6, 6, generator=seeded(6)), draw_points(seeded(7), 3, 40)
    chosen = least_certain(masks, candidates, 10)
    assert chosen.shape == (3, 10, 2)
    for mask, all_of_them, taken in zip(masks, candidates, chosen, strict=True):
        rows = {tuple(point) for point in all_of_them.tolist()}
        assert all(tuple(point) in rows for point in taken.tolist())
        distance = at_points(mask[None, None], all_of_them[None])[0, 0].abs().sort().values
        farthest = at_points(mask[None, None], taken[None])[0, 0].abs().max()
        assert float(farthest) == pytest.approx(float(distance[9]), abs=1e-6)


CONFIG = XDecoderTrainingConfig(POINTS=64)


def predictions(num: int, generator: torch.Generator) -> XDecoderOutput:
    """Random ones for three classes, five queries, the last of which is the image's; two earlier ones; in float64."""
    made = [
        QueryPrediction(
            logits=torch.randn(num, 5, 4, generator=generator, dtype=torch.float64).requires_grad_(),
            masks=torch.randn(num, 5, 8, 8, generator=generator, dtype=torch.float64).requires_grad_(),
            embeddings=torch.zeros(num, 5, 2),
        )
        for _ in range(3)
    ]
    return XDecoderOutput(logits=made[2].logits, masks=made[2].masks, auxiliary=(made[0], made[1]))


def targets() -> list[Target]:
    """Three images with two segments, none, and one."""
    maps = torch.zeros(3, 32, 32, dtype=torch.int32)
    maps[0, :16], maps[0, 20:, 5:9], maps[2, 3:20, 3:20] = 1, 2, 1
    labels: tuple[list[int], ...] = ([2, 0], [], [1])
    return [
        Target(labels=torch.tensor(names, dtype=torch.int64), map=ids, seed=index)
        for index, (names, ids) in enumerate(zip(labels, maps, strict=True))
    ]


def cut(output: XDecoderOutput, part: slice) -> XDecoderOutput:
    return XDecoderOutput(
        logits=output.logits[part],
        masks=output.masks[part],
        auxiliary=tuple(
            QueryPrediction(logits=a.logits[part], masks=a.masks[part], embeddings=a.embeddings[part])
            for a in output.auxiliary
        ),
    )


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    output, true, criterion = predictions(3, seeded(8)), targets(), Criterion(CONFIG)
    whole = criterion(output, true, num_images=3, num_masks=3).total(CONFIG)
    parts = [
        criterion(cut(output, part), true[part], num_images=3, num_masks=3).total(CONFIG)
        for part in (slice(0, 1), slice(1, 3))
    ]
    assert float(torch.stack(parts).sum().detach()) == pytest.approx(float(whole.detach()), rel=1e-12)


def test_the_image_query_is_not_taught_and_every_prediction_is() -> None:
    output = predictions(3, seeded(9))
    Criterion(CONFIG)(output, targets(), num_images=3, num_masks=3).total(CONFIG).backward()
    taught: tuple[Any, ...] = (*output.auxiliary, output)
    for one in taught:
        for tensor in (one.logits, one.masks):
            assert tensor.grad is not None
            assert not tensor.grad[:, -1].any()
            assert tensor.grad[:, :-1].any()
        assert one.logits.grad is not None and one.masks.grad is not None
        assert one.logits.grad[1, :-1].any() and not one.masks.grad[1].any()  # an image without segments


def test_what_is_right_costs_nothing() -> None:
    true = targets()[:1]
    masks = torch.full((1, 5, 32, 32), -50.0)
    masks[0, 3][true[0].map == 1], masks[0, 1][true[0].map == 2] = 50.0, 50.0
    logits = torch.zeros(1, 5, 4)
    for query, label in enumerate((3, 0, 3, 2, 3)):
        logits[0, query, label] = 50.0
    output = XDecoderOutput(logits=logits, masks=masks, auxiliary=())
    losses = Criterion(CONFIG)(output, true, num_images=1, num_masks=2)
    assert float(losses.named) == pytest.approx(0, abs=1e-6)
    assert float(losses.dice) < 0.05  # points near an edge are between two pixels
    swapped = XDecoderOutput(logits=logits, masks=masks.flip(1), auxiliary=())
    assert float(Criterion(CONFIG)(swapped, true, num_images=1, num_masks=2).total(CONFIG)) > 5


def test_more_segments_than_queries_are_as_many_as_there_are_queries() -> None:
    assert num_matched([2, 0, 9], 4) == 6


def test_a_vocabulary_of_its_own_keeps_the_prompts_apart() -> None:
    names = prompt_names(["dog", "grass-merged"])
    table = PromptTable.load().first(3)
    small = table.renumbered(names)
    before, after = table.ids(names, 16), small.ids(names, 16)
    pairs = set(zip(before.flatten().tolist(), after.flatten().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == small.eos + 1
    assert int(after.max()) == small.eos and before.shape == after.shape
    with pytest.raises(SegmenterError, match="'unicorn'"):
        table.renumbered(["unicorn"])


SIZES = XDecoderConfig(
    backbone=BackboneConfig(
        embed_dim=16, depths=(1,) * 4, focal_levels=(1,) * 4, focal_windows=(3,) * 4, depthwise=True, layer_scale=0.1
    ),
    pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=4, ffn_dim=64),
    decoder=DecoderConfig(num_queries=13, hidden_dim=32, embed_dim=32, num_layers=2, num_heads=4, ffn_dim=64),
    text=TextConfig(context_length=8, width=16, num_heads=4, num_layers=1),
)


@pytest.mark.slow
def test_four_images_are_learned_by_heart() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, 64, False) for _ in range(4)]
    names = sorted({shape.name for scene in scenes for shape in scene.shapes}, key=INDEX_BY_NAME.__getitem__)
    table = PromptTable.load().first(1).renumbered(prompt_names(names))
    ids = table.ids(prompt_names(names), 8)
    text = TextConfig(
        vocab_size=table.eos + 1, context_length=8, width=16, num_heads=4, num_layers=1,
        bos_id=table.bos, eos_id=table.eos, pad_id=table.eos,
    )  # fmt: skip
    config = XDecoderConfig(
        backbone=SIZES.backbone, pixel_decoder=SIZES.pixel_decoder, decoder=SIZES.decoder, text=text
    )
    model = XDecoderInTraining(fresh_network(config, 0, 2.66), XDecoderTrainingConfig(POINTS=128), text_trains=True)
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 60 - 2
    truth, labels = torch.zeros(4, 64, 64, dtype=torch.int32), []
    for scene, ids_of in zip(scenes, truth, strict=True):
        for number, shape in enumerate(scene.shapes, start=1):
            ids_of[torch.from_numpy(shape.pixels)] = number
        labels.append(torch.tensor([names.index(shape.name) for shape in scene.shapes]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    num_masks, first = sum(map(len, labels)), math.inf
    for step in range(150):
        true = [Target(labels=a, map=b, seed=4 * step + i) for i, (a, b) in enumerate(zip(labels, truth, strict=True))]
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (150 - step) / 75)
        loss = model(pixels, ids, true, num_images=4, num_masks=num_masks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        first = min(first, float(loss)) if step else float(loss)
    model.eval()
    with torch.inference_mode():
        output = model.network(pixels, class_embeddings(model.network.text_encoder, ids))
    rules = SegmentRules(is_thing=(True,) * len(names), threshold=0.3, overlap=0.5)
    sizes = MaskSizes(padded=(64, 64), image=(64, 64), result=(64, 64))
    right = 0
    for row in range(4):
        found = panoptic_map(output.logits[row], output.masks[row], rules, sizes)
        classes = np.array([-1, *(segment.category_id for segment in found.segments)])
        wanted = np.array([-2, *labels[row].tolist()])
        right += int((classes[found.id_map] == wanted[truth[row].numpy()]).sum())
    assert right / truth.numel() > 0.9
