"""X-Decoder's parts against formulas written out again here, and what must hold whatever the weights are."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.xdecoder.attention import Attention
from modeling.segmenters.xdecoder.checkpoint_names import RELEASED_NAMES, UNUSED_NAMES, our_name, released_name
from modeling.segmenters.xdecoder.config import (
    FOCAL_L,
    FOCAL_T,
    BackboneConfig,
    DecoderConfig,
    PixelDecoderConfig,
    TextConfig,
    XDecoderConfig,
)
from modeling.segmenters.xdecoder.decoder import (
    FeatureLevel,
    QueryDecoderLayer,
    blocked_places,
    class_logits,
    image_query_alone,
    replace_image_query,
)
from modeling.segmenters.xdecoder.focalnet import FocalBlock, FocalModulation, PatchEmbedding
from modeling.segmenters.xdecoder.model import XDecoder
from modeling.segmenters.xdecoder.position import sine_position

CONFIG = XDecoderConfig(
    backbone=BackboneConfig(
        embed_dim=4, depths=(1, 2, 1, 1), focal_levels=(2, 1, 3, 1), focal_windows=(3, 5, 3, 1), depthwise=True
    ),
    pixel_decoder=PixelDecoderConfig(conv_dim=64, mask_dim=6, num_layers=1, num_heads=4, ffn_dim=16),
    decoder=DecoderConfig(num_queries=5, hidden_dim=24, embed_dim=10, num_layers=4, num_heads=3, ffn_dim=16),
    text=TextConfig(
        vocab_size=20, context_length=6, width=8, num_heads=2, num_layers=1, bos_id=18, eos_id=19, pad_id=19
    ),
)
PLAIN = dataclasses.replace(CONFIG, backbone=dataclasses.replace(CONFIG.backbone, depthwise=False))


def network(config: XDecoderConfig = CONFIG) -> XDecoder:
    """A network whose residual scales are not nearly 0, as they are in a new one."""
    torch.manual_seed(0)
    scaled = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, layer_scale=0.7))
    return XDecoder(scaled).eval()


def classes(count: int = 4) -> Tensor:
    drawn = torch.randn(count, CONFIG.decoder.embed_dim, generator=torch.Generator().manual_seed(1))
    return nn.functional.normalize(drawn, dim=-1)


def pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


# position encoding


@pytest.mark.parametrize(("height", "width", "num_features"), [(1, 1, 2), (3, 5, 4), (2, 7, 6)])
def test_position_follows_the_formula(height: int, width: int, num_features: int) -> None:
    ours = sine_position(height, width, num_features)
    assert ours.shape == (2 * num_features, height, width)
    for (axis, count), row, column, k in (
        (place, y, x, k)
        for place in ((0, height), (1, width))
        for y in range(height)
        for x in range(width)
        for k in range(num_features)
    ):
        coordinate = ((row, column)[axis] + 1) / (count + 1e-6) * 2 * math.pi
        angle = coordinate / 10000 ** (2 * (k // 2) / num_features)
        wanted = math.cos(angle) if k % 2 else math.sin(angle)
        assert ours[axis * num_features + k, row, column].item() == pytest.approx(wanted, abs=2e-6)


def test_position_needs_pairs() -> None:
    with pytest.raises(ValueError, match="5 features are odd"):
        sine_position(2, 2, 5)


# attention


def test_attention_equals_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(ours.qkv.bias)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    query, key, value = torch.randn(2, 4, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    allowed = torch.rand(2, 1, 4, 7) > 0.5
    allowed[..., 0] = True
    blocked = ~allowed.expand(-1, 3, -1, -1).flatten(0, 1)
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0])
    wanted = theirs(query, key, value, attn_mask=blocked)[0]
    torch.testing.assert_close(ours(query, key, value, allowed), wanted)


# backbone


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def test_modulation_follows_the_formula() -> None:
    """One channel, one row: written out with plain numbers."""
    torch.manual_seed(0)
    layer = FocalModulation(1, num_levels=2, window=3).double()
    x = torch.randn(6, dtype=torch.float64)
    weight, bias = layer.input.weight[:, 0].tolist(), layer.input.bias.tolist()
    query, context, *gates = [[w * value + b for value in x.tolist()] for w, b in zip(weight, bias, strict=True)]
    total = [0.0] * 6
    for gate, side, convolution in zip(gates, (3, 5), layer.contexts, strict=False):
        kernel = convolution.get_parameter("weight")[
            0, 0, side // 2
        ].tolist()  # only the middle row meets the image's one row
        padded = [0.0] * (side // 2) + context + [0.0] * (side // 2)
        context = [gelu(sum(k * padded[i + j] for j, k in enumerate(kernel))) for i in range(6)]
        total = [t + c * g for t, c, g in zip(total, context, gate, strict=True)]
    whole = gelu(sum(context) / 6)
    total = [(t + whole * g) / 3 for t, g in zip(total, gates[2], strict=True)]
    mix, output = layer.mix, layer.output
    assert mix.bias is not None and output.bias is not None
    wanted = [
        (q * (mix.weight.item() * t + mix.bias.item())) * output.weight.item() + output.bias.item()
        for q, t in zip(query, total, strict=True)
    ]
    ours = layer(x.view(1, 1, 6, 1)).flatten().tolist()
    assert ours == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("depthwise", [True, False])
def test_where_a_block_norms(depthwise: bool) -> None:
    """Without its branches the plain block passes its input on, and the other one norms it."""
    config = dataclasses.replace(CONFIG.backbone, depthwise=depthwise, layer_scale=0.0)
    block = FocalBlock(6, 2, 3, config)
    x = torch.randn(2, 3, 5, 6)
    if depthwise:
        for convolution in (block.local1, block.local2):
            nn.init.zeros_(convolution.weight)
            nn.init.zeros_(convolution.get_parameter("bias"))
    normed = nn.functional.layer_norm(x, (6,))
    wanted = nn.functional.layer_norm(normed, (6,)) if depthwise else x
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize(("side", "tokens"), [(1, 1), (4, 1), (5, 2), (8, 2), (31, 8)])
@pytest.mark.parametrize("depthwise", [True, False])
def test_stem_rounds_up(side: int, tokens: int, depthwise: bool) -> None:
    assert PatchEmbedding.stem(5, depthwise)(pixels(1, 3, side, 2 * side)).shape[1] == tokens


def test_later_embeddings_halve_and_round_up() -> None:
    assert PatchEmbedding.between(3, 5)(pixels(2, 3, 5, 8)).shape == (2, 3, 4, 5)


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
def test_strides_and_widths_of_the_backbone(config: XDecoderConfig) -> None:
    found = [tuple(feature.shape) for feature in network(config).backbone(pixels(2, 3, 64, 96))]
    assert found == [(2, 4, 16, 24), (2, 8, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)]


# decoder


@pytest.mark.parametrize("size", [(2, 3), (8, 12), (1, 1), (5, 7)])
def test_blocked_places_are_those_below_a_half(size: tuple[int, int]) -> None:
    """Against Pillow's bicubic resize, which averages over the source's area as the reference does."""
    masks = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(3)) * 5
    found = blocked_places(masks, size).view(3, *size)
    for mask, row in zip(masks[0], found, strict=True):
        resized = np.asarray(Image.fromarray(mask.numpy()).resize(size[::-1], Image.Resampling.BICUBIC))
        sure = np.abs(resized) > 1e-4
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(row.numpy()[sure], (1 / (1 + np.exp(-resized)) < 0.5)[sure])


def test_a_query_without_any_place_looks_everywhere() -> None:
    torch.manual_seed(0)
    layer = QueryDecoderLayer(CONFIG.decoder)
    queries, position, keys = torch.randn(1, 5, 24), torch.randn(5, 24), torch.randn(1, 6, 24)
    level = FeatureLevel(keys=keys, values=keys + 1, size=(2, 3))
    nothing = torch.zeros(1, 5, 6, dtype=torch.bool)
    half = torch.tensor([True] * 3 + [False] * 3).expand(1, 5, 6)
    one_row = nothing.clone()
    one_row[0, 2] = True
    torch.testing.assert_close(layer(queries, position, level, one_row), layer(queries, position, level, nothing))
    first = FeatureLevel(keys=keys[:, 3:], values=keys[:, 3:] + 1, size=(1, 3))
    wanted = layer(queries, position, first, nothing[..., 3:])
    torch.testing.assert_close(layer(queries, position, level, half), wanted)


def test_image_query_alone() -> None:
    wanted = [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert image_query_alone(4, torch.device("cpu")).int().tolist() == wanted


def test_image_vector_is_a_mixture_of_the_objects() -> None:
    vectors = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [4.0, 4.0], [1.0, 0.0]]])
    cosines = [1.0, 0.0, math.sqrt(0.5)]
    shares = [math.exp(c) / sum(map(math.exp, cosines)) for c in cosines]
    found = replace_image_query(vectors)
    torch.testing.assert_close(found[0, :3], vectors[0, :3])
    wanted = torch.tensor([shares[0] * 3 + shares[2] * 4, shares[1] * 2 + shares[2] * 4])
    torch.testing.assert_close(found[0, 3], wanted)


def test_class_logits_are_scaled_cosines() -> None:
    units = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    found = class_logits(torch.tensor([[[0.0, 5.0], [0.0, 0.0]]]), units, torch.tensor(math.log(20.0)))
    torch.testing.assert_close(found, torch.tensor([[[0.0, 16.0], [0.0, 0.0]]]))


@torch.no_grad()
def test_objects_do_not_see_the_image_query() -> None:
    model = network()
    before = model(pixels(1, 3, 32, 64), classes())
    model.decoder.query_start[-1] += 3
    after = model(pixels(1, 3, 32, 64), classes())
    torch.testing.assert_close(after.masks[:, :-1], before.masks[:, :-1])
    torch.testing.assert_close(after.logits[:, :-1], before.logits[:, :-1])
    assert not torch.allclose(after.masks[:, -1], before.masks[:, -1])


# the whole network


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (32, 256)])
@torch.no_grad()
def test_a_batch_of_equal_sizes_equals_its_images(config: XDecoderConfig, height: int, width: int) -> None:
    """In float64: in float32 the other order of a convolution's sums may turn a place of a query's mask around."""
    model, batch, names = network(config).double(), pixels(3, 3, height, width).double(), classes().double()
    together = model(batch, names)
    assert together.masks.shape == (3, 5, height // 4, width // 4)
    assert together.logits.shape == (3, 5, 4)
    for row, image in enumerate(batch):
        alone = model(image[None], names)
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-10, rtol=1e-9)
        torch.testing.assert_close(together.masks[row], alone.masks[0], atol=1e-10, rtol=1e-9)


@torch.no_grad()
def test_earlier_predictions_are_those_of_shorter_decoders() -> None:
    model = network()
    whole = model(pixels(1, 3, 64, 64), classes(), auxiliary=True)
    assert len(whole.auxiliary) == len(model.decoder.layers) == 4
    assert model(pixels(1, 3, 64, 64), classes()).auxiliary == ()
    while len(model.decoder.layers):
        del model.decoder.layers[-1]
        shorter = model(pixels(1, 3, 64, 64), classes())
        torch.testing.assert_close(shorter.masks, whole.auxiliary[len(model.decoder.layers)].masks)
        torch.testing.assert_close(shorter.logits, whole.auxiliary[len(model.decoder.layers)].logits)


@torch.no_grad()
def test_any_list_of_classes() -> None:
    """The classes' order orders the logits and nothing else; further classes change no other's logit."""
    model, drawn = network(), classes(6)
    wanted = model(pixels(1, 3, 32, 32), drawn)
    order = torch.tensor([3, 0, 5, 1])
    found = model(pixels(1, 3, 32, 32), drawn[order])
    torch.testing.assert_close(found.logits, wanted.logits[..., order])
    torch.testing.assert_close(found.masks, wanted.masks)


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
def test_training_reaches_every_weight(config: XDecoderConfig) -> None:
    model = network(config).train()
    output = model(pixels(2, 3, 64, 64), classes(), auxiliary=True)
    last = [(output.logits, output.masks)]
    predictions = [*((item.logits, item.masks) for item in output.auxiliary), *last]
    torch.stack([logits.square().mean() + masks.square().mean() for logits, masks in predictions]).sum().backward()
    untouched = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    ]
    assert [name for name in untouched if not name.startswith("text_encoder.")] == []
    assert model.decoder.query_start.grad is not None


@torch.no_grad()
def test_half_precision_gives_float32_predictions() -> None:
    model = network()
    wanted = model(pixels(1, 3, 64, 64), classes())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(pixels(1, 3, 64, 64), classes())
    whole = network().bfloat16()(pixels(1, 3, 64, 64).bfloat16(), classes())
    for output in (found, whole):
        assert (output.logits.dtype, output.masks.dtype) == (torch.float32, torch.float32)
    assert (found.logits - wanted.logits).abs().max() < 0.2


def test_inputs_that_do_not_fit() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"multiple of 32, same\), not \(1, 3, 32, 40\); pad first"):
        model(pixels(1, 3, 32, 40), classes())
    with pytest.raises(ValueError, match=r"class embeddings: \(K \+ 1, 10\), not \(4, 9\)"):
        model(pixels(1, 3, 32, 32), classes()[:, :9])


# names of the weights


@pytest.mark.parametrize("config", [CONFIG, PLAIN, FOCAL_T, FOCAL_L])
def test_every_weight_has_one_released_name(config: XDecoderConfig) -> None:
    with torch.device("meta"):
        ours = list(XDecoder(config).state_dict())
    released = [released_name(name) for name in ours]
    assert None not in released
    assert len(set(released)) == len(ours)
    assert [our_name(name) for name in released if name] == ours


def test_unknown_names_have_none() -> None:
    assert all(our_name(name) is None for name in UNUSED_NAMES)
    assert our_name("backbone.layers.0.blocks.0.dw1.running_mean") is None
    assert our_name("module.backbone.norm0.weight") is None
    assert released_name("decoder.layers.x.self_norm.weight") is None
    assert len({ours for _, ours in RELEASED_NAMES}) == len(RELEASED_NAMES)


# configuration


@pytest.mark.parametrize("config", [CONFIG, PLAIN, FOCAL_T, FOCAL_L])
def test_configuration_survives_json(config: XDecoderConfig) -> None:
    assert XDecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def changed(part: str | None, **values: Any) -> dict[str, Any]:
    settings = CONFIG.to_dict()
    (settings[part] if part else settings).update(values)
    return settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (changed(None, backbne={}), r"unknown key 'backbne'; did you mean backbone\?"),
        (changed("text", zzz=1), "text: unknown key 'zzz'. Known keys: vocab_size"),
        ({"backbone": {"embed_dim": 4}}, "backbone: missing keys depths, "),
        ({}, "missing key backbone"),
        (changed(None, decoder=3), "decoder: expected a mapping, got 3"),
        (changed("decoder", num_heads="8"), "decoder.num_heads: expected int, got '8'"),
        (changed("decoder", num_heads=True), "decoder.num_heads: expected int, got True"),
        (changed("backbone", depthwise=1), "backbone.depthwise: expected bool, got 1"),
        (changed("backbone", depths=4), "backbone.depths: expected a list, got 4"),
        (changed("backbone", depths=[1, 1, 1, "1"]), r"backbone.depths\[3\]: expected int, got '1'"),
        (changed("backbone", depths=[1, 1, 1]), "backbone.depths: 4 counts of at least 1 are needed"),
        (changed("backbone", focal_windows=[3, 4, 3, 3]), "backbone.focal_windows: sides must be odd"),
        (changed("pixel_decoder", conv_dim=48), "pixel_decoder.conv_dim: 48 is no multiple of 32"),
        (changed("pixel_decoder", num_heads=3), "pixel_decoder.num_heads: 3 does not divide pixel_decoder.conv_dim"),
        (changed("decoder", hidden_dim=18), "decoder.hidden_dim: 18 is no multiple of 4"),
        (changed("decoder", num_queries=1), "decoder.num_queries: 1"),
        (changed("text", eos_id=20), "text.eos_id: 20 is none of 20 tokens"),
        (changed(None, pixel_std=[1, 2]), "pixel_std: three numbers are needed"),
        (changed(None, pixel_std=[1, 2, 0]), "pixel_std: must be above 0"),
        (changed(None, size_divisibility=16), "size_divisibility: 16 is no multiple of 32"),
    ],
)
def test_configuration_errors_name_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SegmenterError, match=message):
        XDecoderConfig.from_dict(settings)
