"""Scores that are NaN or infinite: no answer, for nobody but the questions that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from assets.tiny.random_checkpoint import make_tiny
from collavo.engine import Engine, Generation, Query, non_finite
from collavo.errors import NonFiniteError
from collavo.load_collavo import load_engine
from collavo.options import LLMConfig
from modeling.image import DecodedImage
from modeling.segmenters.none import NoSegmenter

SEARCHES = (Generation(num_beams=1, max_new_tokens=6), Generation(num_beams=3, max_new_tokens=5))
QUESTION = "Is there a dog in the image?"
DARK, BRIGHT = 20, 235


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finite") / "tiny"
    make_tiny(directory, seed=0)
    return directory


def load(checkpoint: Path) -> Engine:
    return load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(checkpoint), NoSegmenter())


def image(level: int) -> DecodedImage:
    return DecodedImage(np.full((112, 112, 3), level, np.uint8), f"{level}.png")


def overflow_on_bright(engine: Engine) -> None:
    """Make one unit of the projector react to bright images alone, and overflow there."""
    model = engine.model
    with torch.no_grad():
        features = [
            model.vision_tower(engine.processor.pixel_values(image(level).pixels[None])).mean((0, 1))
            for level in (DARK, BRIGHT)
        ]
        direction = features[1] - features[0]
        first, last = (model.projector.get_submodule(name) for name in ("0", "2"))
        weight, bias, end = first.get_parameter("weight"), first.get_parameter("bias"), last.get_parameter("weight")
        weight[0] = 1e6 * direction
        bias[0] = -1e6 * float(direction @ (features[0] + features[1]) / 2)
        end[:, 0] = 3e38


@pytest.mark.parametrize("generation", SEARCHES)
@pytest.mark.parametrize("weight", ["language_model.norm.weight", "output.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_weight_gives_no_answer_to_anything(
    checkpoint: Path, generation: Generation, weight: str, value: float
) -> None:
    engine = load(checkpoint)
    with torch.no_grad():
        engine.model.get_parameter(weight).view(-1)[3] = value
    asked = [Query(image(DARK), QUESTION), Query(None, "What is two and two?"), Query(image(DARK), "How many?")]
    for queries in (asked, asked[:1]):
        with pytest.raises(NonFiniteError, match=r"not finite .*a weight of the checkpoint") as caught:
            engine.answer(queries, generation)
        assert caught.value.replies == (None,) * len(queries)


@pytest.mark.parametrize("generation", SEARCHES)
def test_one_image_that_overflows_leaves_the_others_their_answers(checkpoint: Path, generation: Generation) -> None:
    engine = load(checkpoint)
    overflow_on_bright(engine)
    good = [Query(image(DARK), QUESTION), Query(None, "What is two and two?"), Query(image(DARK), "How many?")]
    expected = engine.answer(good, generation)
    with pytest.raises(NonFiniteError) as caught:
        engine.answer([good[0], Query(image(BRIGHT), QUESTION), *good[1:]], generation)
    assert caught.value.replies == (expected[0], None, *expected[1:])
    with pytest.raises(NonFiniteError):
        engine.answer([Query(image(BRIGHT), QUESTION)], generation)


def test_the_advice_depends_on_the_type() -> None:
    assert "try LLM.DTYPE bf16 or fp32" in non_finite(torch.float16)
    assert "LLM.DTYPE" not in non_finite(torch.float32)
