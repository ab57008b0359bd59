"""Images stand where a question's marks are, in prompts of checkpoints and in messages to servers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collavo.engine import Generation, Query, Reply
from pipeline.config import EvalConfig, read_configuration
from pipeline.models.endpoint_engine import EndpointEngine
from pipeline.models.hf_engine import TransformersEngine
from pipeline.models.images import ModelImage, ModelImages, place_images
from pipeline.models.profile import load_profile
from tests.tiny_models import tiny
from tests.unit.pipeline.models.test_families import image


@pytest.mark.parametrize(
    ("question", "count", "apart", "pieces"),
    [
        ("what", 0, (), ("what",)),
        ("what", 2, (0, 1), ("what",)),
        ("Is <image 1> like <image 2>?", 2, (), ("Is ", 0, " like ", 1, "?")),
        ("Is <image 2> like <image 1>?", 2, (), ("Is ", 1, " like ", 0, "?")),
        ("Is <image 2> nice?", 3, (0, 2), ("Is ", 1, " nice?")),
        ("Of <image 1>: is <image 1> nice?", 1, (), ("Of ", 0, ": is <image 1> nice?")),
        ("Is <image 3> nice?", 2, (0, 1), ("Is <image 3> nice?",)),
        ("Is <image> like <image>?", 2, (), ("Is ", 0, " like ", 1, "?")),
        ("Is <image> like <image>?", 3, (0, 1, 2), ("Is <image> like <image>?",)),
        ("Is <image1> like it?", 1, (), ("Is ", 0, " like it?")),
        ("<image 1> what", 1, (0,), ("what",)),
        ("<image>\nwhat", 1, (0,), ("what",)),
        ("<image 1><image 2>\nwhat", 2, (0, 1), ("what",)),
        ("<image 2><image 1> what", 2, (), (1, 0, " what")),
        ("what <image>", 1, (), ("what ", 0)),
        ("what is an <image>?", 0, (), ("what is an <image>?",)),
        ("  what", 1, (0,), ("  what",)),
        ("<image 0> what", 1, (0,), ("<image 0> what",)),
    ],
)
def test_where_images_stand(question: str, count: int, apart: tuple[int, ...], pieces: tuple[str | int, ...]) -> None:
    found = place_images(question, count)
    assert (found.apart, found.pieces) == (apart, pieces)


PARTS = st.sampled_from(["so ", "<image 1>", "<image 2>", "<image 9>", "<image>", "\n"])


@given(st.lists(PARTS, max_size=6), st.integers(0, 3))
def test_every_image_stands_once_and_no_text_is_lost(parts: list[str], count: int) -> None:
    question = "".join(parts)
    found = place_images(question, count)
    numbers = [*found.apart, *(piece for piece in found.pieces if isinstance(piece, int))]
    assert sorted(numbers) == list(range(count))
    words = "".join(piece for piece in found.pieces if isinstance(piece, str))
    assert words.count("so") == question.count("so") and words.count("<image 9>") == question.count("<image 9>")


FIRST, SECOND = (ModelImage(image(*size).pixels, str(size)) for size in ((40, 60), (30, 30)))
BOTH = ModelImages(FIRST.pixels, "both", (FIRST, SECOND))
ONE = ModelImages(FIRST.pixels, "one", (FIRST,))
GREEDY = Generation(num_beams=1, max_new_tokens=4)


def test_a_chat_template_gets_them_in_place() -> None:
    engine = TransformersEngine(*tiny("qwen2-vl"), load_profile("qwen2-vl").profile)
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    prepared = engine.prepare(0, Query(BOTH, "Is <image 2> like <image 1>?"))
    assert prepared.prompt == f"<s>user: Is {place} like {place}?assistant:"
    swapped = engine.prepare(0, Query(ModelImages(SECOND.pixels, "x", (SECOND, FIRST)), "Is <image> like <image>?"))
    assert prepared.inputs.keys() == swapped.inputs.keys()
    for name, value in prepared.inputs.items():
        assert np.array_equal(value.numpy(), swapped.inputs[name].numpy()), "the second image comes first"
    grids = prepared.inputs["image_grid_thw"].tolist()
    assert grids[0] != grids[1], "images of equal sizes would show nothing"
    (reply,) = engine.answer([Query(BOTH, "Is <image 2> like <image 1>?")], GREEDY)
    assert isinstance(reply, Reply)


def test_a_label_stands_only_before_images_that_no_mark_places() -> None:
    engine = TransformersEngine(*tiny("internvl"), load_profile("internvl").profile)
    assert "Image-" not in engine.render("Is <image 1> like <image 2>?", 2)
    assert engine.render("Is <image 2> nice?", 2) == "<s>user: Image-1: <ctx>\nIs <ctx>\n nice?assistant:"


def test_a_profiles_template_gets_them_in_place() -> None:
    engine = TransformersEngine(*tiny("llava-1.5"), load_profile("llava-1.5").profile)
    system = engine.profile.prompt.system
    assert engine.render("what", 1) == f"{system} USER: <image>\nwhat ASSISTANT:"
    assert engine.render("<image 1> what", 1) == f"{system} USER: <image>\nwhat ASSISTANT:"
    assert engine.render("Is <image 1> nice?", 1) == f"{system} USER: Is <image> nice? ASSISTANT:"
    prepared = engine.prepare(0, Query(ONE, "Is <image 1> nice?"))
    assert (prepared.inputs["input_ids"] == engine.processor.image_token_id).sum() == 4


IMAGES_FIRST = (
    "{% for m in messages %}{{ m.role }} {% for c in m.content if c.type == 'image' %}<image>{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ '\\n' + c.text }}{% endfor %}{% endfor %}"
)
"""As the converted checkpoints of LLaVA-OneVision have it."""


def test_a_template_that_puts_images_first_gets_the_question_whole() -> None:
    model, processor = tiny("llava-onevision")
    processor.chat_template = IMAGES_FIRST
    engine = TransformersEngine(model, processor, load_profile("llava-onevision").profile)
    question = "Is <image 2> like <image 1>?"
    assert engine.render(question, 2) == f"user <image><image>\n{question}"


@pytest.mark.parametrize("family", ["paligemma", "blip-2", "instructblip"])
def test_families_whose_image_has_one_place_keep_it_there(family: str) -> None:
    engine = TransformersEngine(*tiny(family), load_profile(family).profile)
    assert "Is <image 1> nice?" in engine.render("Is <image 1> nice?", 1)
    (reply,) = engine.answer([Query(ONE, "Is <image 1> nice?")], GREEDY)
    assert isinstance(reply, Reply)


@pytest.mark.slow
def test_a_server_gets_them_in_place() -> None:
    config, _ = read_configuration(
        [], ["MODEL.NAME", "endpoint", "MODEL.BASE_URL", "http://localhost:1/v1"], EvalConfig
    )
    engine = EndpointEngine(config.MODEL, config.profile, {})
    parts = engine._content(BOTH)
    (message,) = engine._messages(parts, "Is <image 2> like <image 1>?")
    texts = [{"type": "text", "text": text} for text in ("Is ", " like ", "?")]
    assert message["content"] == [texts[0], parts[1], texts[1], parts[0], texts[2]]
    (message,) = engine._messages(parts, "what")
    assert message["content"] == [*parts, {"type": "text", "text": "what"}]
