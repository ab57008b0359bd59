"""X-Decoder behind the segmenter interface: shared forward passes, classes by name, and what is kept of them."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from modeling.image import DecodedImage
from modeling.segmenters import build_segmenter
from modeling.segmenters.base import PanopticMap
from modeling.segmenters.coco import COCO_PANOPTIC, INDEX_BY_NAME
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from modeling.segmenters.xdecoder import convert, vocabulary
from modeling.segmenters.xdecoder.checkpoint import save_model
from modeling.segmenters.xdecoder.checkpoint_names import released_name
from modeling.segmenters.xdecoder.classes import class_list
from modeling.segmenters.xdecoder.model import XDecoder
from modeling.segmenters.xdecoder.segmenter import XDecoderSegmenter
from tests.unit.segmenters.tiny_xdecoder import CONFIG, save_tiny_xdecoder, tiny_xdecoder


def settings(path: Path, **more: Any) -> SegmenterConfig:
    chosen = {"THRESHOLD": 0.1, "MASK_THRESHOLD": 0.05, "SHORT_SIDE": 32, "LONG_SIDE": 96} | more
    return SegmenterConfig(NAME="xdecoder", PATH=str(path), **chosen)


def built(path: Path, **more: Any) -> XDecoderSegmenter:
    segmenter = build_segmenter(settings(path, **more))
    assert isinstance(segmenter, XDecoderSegmenter)
    return segmenter


def image(height: int, width: int, seed: int = 0) -> DecodedImage:
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), np.uint8)
    rows, columns = (np.arange(side) * cells // side for side, cells in ((height, 2), (width, 3)))
    return DecodedImage(coarse[rows][:, columns], f"p{seed}.jpg")


def same(ours: PanopticMap, theirs: PanopticMap) -> bool:
    return np.array_equal(ours.id_map, theirs.id_map) and [s.category_id for s in ours.segments] == [
        s.category_id for s in theirs.segments
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_xdecoder(tmp_path_factory.mktemp("xdecoder"))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the batches that the network sees."""
    shapes: list[tuple[int, ...]] = []
    original = XDecoder.forward

    def recorded(self: XDecoder, pixels: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        shapes.append(tuple(pixels.shape))
        return original(self, pixels, *arguments, **more)

    monkeypatch.setattr(XDecoder, "forward", recorded)
    yield shapes


def test_images_of_one_prepared_size_share_a_forward(folder: Path, forwards: list[tuple[int, ...]]) -> None:
    segmenter = built(folder, BATCH_SIZE=3)
    assert segmenter.block == 1  # on a CPU
    segmenter.block = 3
    sizes = [(40, 60), (60, 40), (80, 120), (40, 61), (44, 66), (40, 60)]  # all but one become 32 x 48 or 49
    images = [image(*size, seed=seed) for seed, size in enumerate(sizes)]
    together = segmenter.segment(images, (35, 35))
    assert sorted(forwards) == [(3, 3, 32, 64), (3, 3, 32, 64), (3, 3, 64, 32)]
    alone = [segmenter.segment([item], (35, 35))[0] for item in images]
    assert all(map(same, together, alone))
    assert {shape[0] for shape in forwards} == {3}, "an image alone is in a full block as well"
    assert any(panoptic.segments for panoptic in alone)


def test_grey_thin_and_large_images(folder: Path) -> None:
    grey = DecodedImage(np.full((50, 70, 3), 128, np.uint8), "grey.png")
    found = built(folder).segment([grey, image(1, 3000), image(3000, 1), image(2000, 3000)], (7, 9))
    assert [panoptic.id_map.shape for panoptic in found] == [(7, 9)] * 4
    with pytest.raises(SegmenterError, match=r"image p4\.jpg: 1x3000 pixels would become .*SEGMENTER\.LONG_SIDE"):
        built(folder, RESIZE="demo", SHORT_SIDE=512, LONG_SIDE=None).segment([image(1, 3000, seed=4)], (7, 9))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"RESIZE": "demoo"}, "no rule 'demoo'"),
        ({"SHORT_SIDE": 0}, "at least 1"),
        ({"BATCH_SIZE": 0}, "SEGMENTER.BATCH_SIZE: must be at least 1"),
        ({"CLASSES": [f"c{i}" for i in range(134)]}, "134 classes, at most 133 .* crayon table"),
        ({"CLASSES": ["dog", "dog"]}, "'dog' stands there more than once"),
        ({"CLASSES": ["sky-other-merged", "sky"]}, "'sky' stands there more than once"),
        ({"CLASSES": ["dog", "background"]}, "background"),
        ({"CLASSES": ["dog", "-other"]}, "no class can be called ''"),
        ({"CLASSES": ["dog"], "STUFF": ["cat"]}, "'cat' is not among SEGMENTER.CLASSES"),
        ({"CLASSES": ["unicorn"]}, "set SEGMENTER.TOKENIZER to a directory with CLIP's tokenizer"),
        ({"CLASSES": ["unicorn"], "TOKENIZER": "nowhere"}, "nowhere is no directory"),
    ],
)
def test_mistakes_are_explained(folder: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(SegmenterError, match=message):
        built(folder, **more)


def test_every_setting_that_changes_maps_changes_the_fingerprint(folder: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"THRESHOLD": 0.2}, {"MASK_THRESHOLD": 0.2}, {"RESIZE": "demo"}, {"SHORT_SIDE": 64}, {"LONG_SIDE": 64},
        {"CLASSES": ["dog", "cat"]}, {"CLASSES": ["cat", "dog"]}, {"CLASSES": ["dog", "cat"], "STUFF": ["cat"]},
    ]  # fmt: skip
    prints = [built(folder, **change).fingerprint for change in changes]
    assert len(set(prints)) == len(changes)
    assert built(folder, BATCH_SIZE=1).fingerprint == prints[0]
    assert built(folder, THRESHOLD=0.8, MASK_THRESHOLD=0.8).fingerprint == (
        built(folder, THRESHOLD=None, MASK_THRESHOLD=None).fingerprint
    )


def test_kept_classes_are_not_encoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the text encoder ran")

    monkeypatch.setattr(vocabulary, "class_embeddings", never)
    assert len(built(folder).categories) == 133
    fewer = built(folder, CLASSES=["wall", "dog"], THRESHOLD=0.0)
    assert {number: category.name for number, category in fewer.categories.items()} == {131: "wall", 16: "dog"}
    found = fewer.segment([image(50, 70)], (35, 35))[0]
    assert {segment.category_id for segment in found.segments} <= {131, 16}
    with pytest.raises(AssertionError, match="the text encoder ran"):
        built(folder, CLASSES=["dog", "unicorn"], TOKENIZER=str(save_tokenizer(folder / "tokenizer", 49407)))


def save_tokenizer(path: Path, end: int) -> Path:
    """A tokenizer of words in CLIP's layout, whose last id is ``end``."""
    words = ["unicorn", "dog", "background", "a", "photo", "of"]
    ids = {word: index for index, word in enumerate(words)} | {"<unk>": 10, "<start>": end - 1, "<end>": end}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", end - 1), ("<end>", end)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>").save_pretrained(path)
    return path


def test_other_names_are_read_by_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    segmenter = built(folder, CLASSES=["unicorn", "dog"], TOKENIZER=str(save_tokenizer(tmp_path / "t", 49407)))
    assert {number: c.name for number, c in segmenter.categories.items()} == {0: "unicorn", 16: "dog"}
    with pytest.raises(SegmenterError, match="end with token 99, those of this checkpoint's text encoder with 49407"):
        built(folder, CLASSES=["unicorn"], TOKENIZER=str(save_tokenizer(tmp_path / "u", 99)))


@pytest.mark.slow
def test_a_released_file_and_its_conversion_give_the_same_maps(tmp_path: Path) -> None:
    """Both embed the 133 classes by the text encoder; the directory without it cannot name others."""
    model = tiny_xdecoder()
    torch.save({released_name(key): tensor for key, tensor in model.state_dict().items()}, tmp_path / "model.pt")
    convert.convert(tmp_path / "model.pt", tmp_path / "whole")
    convert.convert(tmp_path / "model.pt", tmp_path / "small", with_text=False)
    images = [image(50, 70, seed) for seed in range(2)]
    maps = [built(tmp_path / name).segment(images, (20, 20)) for name in ("model.pt", "whole", "small")]
    assert all(same(ours, theirs) for other in maps[1:] for ours, theirs in zip(maps[0], other, strict=True))
    assert any(panoptic.segments for panoptic in maps[0])
    with pytest.raises(SegmenterError, match="comes without a text encoder .* person, bicycle"):
        built(tmp_path / "small", CLASSES=["unicorn"])


def test_a_vocabulary_of_its_own_comes_with_its_table(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, text=dataclasses.replace(CONFIG.text, vocab_size=8, bos_id=6, eos_id=7, pad_id=7)
    )
    save_model(tmp_path, tiny_xdecoder(config))
    with pytest.raises(SegmenterError, match=r"end with token 49407, .* with 7; .* needs its prompts\.json"):
        built(tmp_path)
    table = {
        "bos": 6, "eos": 7, "templates": [{"text": "a {}.", "before": [0], "after": [1]}],
        "names": {"dog": [2], "sky": [3, 4], "background": [5]},
    }  # fmt: skip
    (tmp_path / "prompts.json").write_text(json.dumps(table))
    assert set(built(tmp_path, CLASSES=["dog", "sky-other-merged"]).categories) == {
        16,
        INDEX_BY_NAME["sky-other-merged"],
    }
    # what it keeps is what it looks for where nothing else is said
    convert.convert(tmp_path, tmp_path / "kept", ["dog", "sky"], with_text=False)
    assert [category.name for category in built(tmp_path / "kept").categories.values()] == ["dog", "sky"]
    assert (tmp_path / "kept" / "prompts.json").is_file()


def test_classes_keep_their_numbers_and_kinds() -> None:
    every = class_list()
    assert every.numbers == tuple(range(133))
    assert every.is_thing == tuple(category.is_thing for category in COCO_PANOPTIC)
    assert every.categories == dict(enumerate(COCO_PANOPTIC))
    mixed = class_list(["flag", "person", "lava", "sky", "bicycle"], stuff=["lava"])
    assert mixed.is_thing == (True, True, False, False, True)
    # things take rows of things that are left (2: car), stuff those of stuff (80: banner)
    assert mixed.numbers == (2, 0, 80, INDEX_BY_NAME["sky-other-merged"], 1)
    assert mixed.categories[2].name == "flag"
    assert mixed.categories[2].id > 200
    full = class_list([f"c{index}" for index in range(133)])
    assert sorted(full.numbers) == list(range(133))
