"""Boxes on the scales, frames and in the forms of other models; see ``configs/models``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from datasets.evaluation.grounding import GroundingScorer, resized
from datasets.types import Record
from tests.limits import examples


def record(box: tuple[float, ...], width: int = 640, height: int = 480) -> Record:
    return Record(id="r", image=None, fields={}, target=list(box), meta={"width": width, "height": height})


@pytest.mark.parametrize(
    ("options", "reply"),
    [
        ({"scale": 1}, "[0.25, 0.25, 0.5, 0.75]"),
        ({"scale": 1000}, "<box>(250,250),(500,750)</box>"),  # Qwen-VL, InternVL
        ({"scale": 1000, "tags": True}, "<loc_250><loc_250><loc_500><loc_750>"),  # Florence-2
        ({"scale": 1024, "tags": True, "order": "yxyx"}, "<loc0256><loc0256><loc0768><loc0512> cat"),  # PaliGemma
        ({"scale": 100, "tags": True}, "{<25><25><50><75>}"),  # MiniGPT-v2
        ({"scale": 0}, '{"bbox_2d": [160, 120, 320, 360]}'),  # Qwen2.5-VL where the image is not resized
        ({"scale": 1, "frame": "padded"}, "[0.25, 0.3125, 0.5, 0.6875]"),  # LLaVA: 80 rows above and below
        ({"scale": 0, "frame": "padded"}, "[160, 200, 320, 440]"),
        ({"scale": 336, "frame": "padded"}, "[84, 105, 168, 231]"),  # pixels of the model's input
        ({"scale": 0, "frame": "resized"}, "[161, 119, 322, 357]"),  # 644 x 476
    ],
)
def test_forms_of_other_models(options: dict[str, Any], reply: str) -> None:
    found = GroundingScorer(**options).score(record((160, 120, 320, 360)), reply)
    assert found.iou == pytest.approx(1.0, abs=1e-9)
    assert found.value == 1.0


def test_the_wrong_scale_is_wrong() -> None:
    reply = "(250,250),(500,750)"
    assert GroundingScorer(scale=1000).score(record((160, 120, 320, 360)), reply).value == 1.0
    assert GroundingScorer(scale=0).score(record((160, 120, 320, 360)), reply).value == 0.0


def test_tags_are_read_only_where_the_profile_says_so() -> None:
    reply = "<loc_250><loc_250><loc_500><loc_750>"
    assert GroundingScorer(scale=1000).score(record((160, 120, 320, 360)), reply).no_answer


@settings(max_examples=examples(100))
@given(
    st.integers(30, 2000),
    st.integers(30, 2000),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.sampled_from([0.0, 1.0, 100.0, 1000.0]),
    st.sampled_from(["image", "padded", "resized"]),
    st.sampled_from(["xyxy", "yxyx"]),
)
def test_a_models_own_form_of_the_target_is_right(
    width: int, height: int, corners: list[float], scale: float, frame: Any, order: Any
) -> None:
    x1, x2, y1, y2 = *sorted((corners[0] * width, corners[1] * width)), *sorted((corners[2], corners[3]))
    box = (x1, y1 * height, x2, y2 * height)
    assume(x2 - x1 > 2 and box[3] - box[1] > 2)
    options = GroundingScorer(scale=scale, frame=frame, order=order)
    asked = record(box, width, height)
    found = options.score(asked, options.own_reply(asked))
    assert found.iou is not None and found.iou > 0.99


@settings(max_examples=examples(200))
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([14, 28, 32]), st.sampled_from([1, 4, 1280, 16384]))
def test_resized_as_the_library_does(width: int, height: int, factor: int, most: int) -> None:
    assume(max(width, height) / min(width, height) <= 200)
    options = GroundingScorer(factor=factor, min_pixels=factor**2, max_pixels=most * factor**2)
    theirs = smart_resize(height, width, factor, options.min_pixels, options.max_pixels)
    assert resized(width, height, options) == (theirs[1], theirs[0])


@pytest.mark.parametrize("size", [(640, 481), (481, 640), (3, 2), (100, 100)])
def test_padded_as_an_image_is(size: tuple[int, int]) -> None:
    """The image's first pixel stands where the padded image has it."""
    image = Image.new("RGB", size, "white")
    side = max(size)
    square = Image.new("RGB", (side, side), "black")
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    left, top, right, bottom = square.getbbox() or (0, 0, 0, 0)
    asked = record((0, 0, *size), *size)
    found = GroundingScorer(scale=0, frame="padded").score(asked, f"[{left}, {top}, {right}, {bottom}]")
    assert found.iou == pytest.approx(1.0)
