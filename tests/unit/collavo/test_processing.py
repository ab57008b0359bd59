"""The processor: normalised pixels against golden data, padding, settings, and text there and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from collavo.errors import CheckpointError
from collavo.processing import CLIP_MEAN, CLIP_STD, SETTINGS_FILE, CoLLaVOProcessor
from collavo.template import CHAT, STOP_TAG, reply_text
from collavo.tokenizer import tiny_tokenizer
from tests.fixtures import fixture_dir


@pytest.fixture(scope="module")
def processor() -> CoLLaVOProcessor:
    return CoLLaVOProcessor(tiny_tokenizer(), image_size=28, patch_size=14)


def test_pixels_equal_golden_data() -> None:
    directory = fixture_dir("collavo") / "tiny"
    settings = json.loads((directory / "config.json").read_text())
    golden = load_file(directory / "prefill.safetensors")
    assert settings["image_mean"] == pytest.approx(CLIP_MEAN)
    assert settings["image_std"] == pytest.approx(CLIP_STD)
    side, patch = golden["images"].shape[-1], settings["vision_tower"]["patch_size"]
    processor = CoLLaVOProcessor(tiny_tokenizer(), image_size=side, patch_size=patch)
    assert processor.grid == settings["grid"]
    ours = processor.pixel_values(golden["images"].permute(0, 2, 3, 1).numpy())
    assert ours.dtype == torch.float32
    assert float((ours - golden["pixel_values"]).abs().max()) < 1e-6


def test_channels_are_normalised_each_by_its_own_numbers() -> None:
    processor = CoLLaVOProcessor(tiny_tokenizer(), 2, 1, image_mean=(10, 20, 30), image_std=(1, 2, 4))
    images = np.full((1, 2, 2, 3), (12, 30, 130), np.uint8)
    images[0, 0, 1] = (10, 20, 30)
    assert processor.pixel_values(images).tolist() == [[[[2, 0], [2, 2]], [[5, 0], [5, 5]], [[25, 0], [25, 25]]]]


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 28, 14, 3), np.uint8), np.zeros((1, 3, 28, 28), np.uint8), np.zeros((1, 28, 28, 3), np.float32)],
)
def test_other_images_are_refused(processor: CoLLaVOProcessor, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="images must be uint8"):
        processor.pixel_values(images)


@given(st.lists(st.lists(st.integers(3, 200), min_size=1, max_size=9), min_size=1, max_size=5))
def test_rows_are_padded_on_the_left(rows: list[list[int]]) -> None:
    processor = CoLLaVOProcessor(tiny_tokenizer(), 28, 14)
    ids, mask = processor.pad_left(rows)
    assert ids.dtype == mask.dtype == torch.int64
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, padded, kept in zip(rows, ids, mask, strict=True):
        assert padded[kept.bool()].tolist() == row
        assert kept.tolist() == sorted(kept.tolist())
        assert set(padded[~kept.bool()].tolist()) <= {processor.tokenizer.pad_token_id}


def test_padding_is_the_tokenizers(processor: CoLLaVOProcessor) -> None:
    prompts = [CHAT.prompt("", "Why?"), CHAT.prompt(None, "What is the colour of the bus on the left?")]
    theirs = processor.tokenizer(prompts, padding=True, return_tensors="pt")
    ids, mask = processor.pad_left(processor.encode(prompts))
    assert torch.equal(ids, theirs.input_ids)
    assert torch.equal(mask, theirs.attention_mask)


def test_one_image_id_an_image(processor: CoLLaVOProcessor) -> None:
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    with_image, without = processor.encode([CHAT.prompt("", "Why?"), CHAT.prompt(None, "Why?")])
    assert (with_image.count(image), without.count(image)) == (1, 0)
    assert with_image[0] == without[0] == processor.tokenizer.bos_token_id


def test_the_end_tag_stays_visible_and_ends_the_reply(processor: CoLLaVOProcessor) -> None:
    ids = processor.encode([f"Yes, it  is.{STOP_TAG}\nmore"])[0][1:]
    assert processor.decode(ids) == f"Yes, it  is.{STOP_TAG}\nmore"
    assert reply_text(processor.decode(ids)) == "Yes, it  is."


def test_settings_come_back(tmp_path: Path) -> None:
    saved = CoLLaVOProcessor(tiny_tokenizer(), 42, 6, (1.5, 2.5, 3.5), (4, 5, 6))
    saved.save_pretrained(tmp_path)
    loaded = CoLLaVOProcessor.from_pretrained(tmp_path)
    assert (loaded.image_size, loaded.patch_size, loaded.grid) == (42, 6, 7)
    assert (loaded.image_mean, loaded.image_std) == ((1.5, 2.5, 3.5), (4, 5, 6))
    text = CHAT.prompt("(#1 dog) [0.00, 0.16, 0.29, 0.88]", "图中有几只狗？")
    assert loaded.encode([text]) == saved.encode([text])


def test_without_settings_the_released_ones_hold(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = CoLLaVOProcessor.from_pretrained(tmp_path)
    assert (loaded.image_size, loaded.patch_size, loaded.grid) == (490, 14, 35)
    assert loaded.image_mean == pytest.approx((122.771, 116.746, 104.094), abs=1e-3)
    assert loaded.image_std == pytest.approx((68.501, 66.632, 70.323), abs=1e-3)


GOOD = {"image_size": 28, "patch_size": 14, "image_mean": [1, 2, 3], "image_std": [1, 2, 3]}


@pytest.mark.parametrize(
    "settings",
    [
        "{",
        "[]",
        "{}",
        json.dumps(GOOD | {"image_size": "28"}),
        json.dumps(GOOD | {"patch_size": 0}),
        json.dumps(GOOD | {"patch_size": 29}),
        json.dumps(GOOD | {"image_mean": [1, 2]}),
        json.dumps(GOOD | {"image_std": [1, 0, 1]}),
        json.dumps(GOOD | {"image_std": 1}),
    ],
)
def test_damaged_settings_name_their_file(settings: str, tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text(settings)
    with pytest.raises(CheckpointError, match=SETTINGS_FILE):
        CoLLaVOProcessor.from_pretrained(tmp_path)
