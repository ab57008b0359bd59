"""Training and evaluation share the kept maps: what one has segmented, the other finds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.tiny.random_checkpoint import make_tiny
from collavo.crayon import crayon_prompt
from collavo.engine import Generation, Query
from collavo.load_collavo import load_engine
from collavo.options import LLMConfig
from collavo.processing import CoLLaVOProcessor
from configs.load import ConfigError
from datasets.instruct.types import Sample, Turn
from datasets.types import ImageFile
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import COCO_BY_INDEX
from pipeline.images import decode_image
from pipeline.models.map_cache import CachedSegmenter, PanopticMapCache
from trainer.config import LoopConfig, read_training
from trainer.data.samples import Conversations, Preparation


class Counting:
    """Finds a dog in the upper half of every image; counts the images."""

    fingerprint = "upper-half"
    categories = COCO_BY_INDEX
    reads_maps = False

    def __init__(self) -> None:
        self.count = 0

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        self.count += len(images)
        id_map = np.zeros(size, np.int32)
        id_map[: size[0] // 2] = 1
        return [PanopticMap(id_map, (Segment(id=1, category_id=16, score=0.5),)) for _ in images]


def test_training_and_evaluation_find_each_others_maps(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny", seed=0)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    image, counting = ImageFile(tmp_path / "a.png", "train/a.png"), Counting()
    processor = CoLLaVOProcessor.from_pretrained(tmp_path / "tiny")
    turn = Turn(question="What is it?", answer="A dog.")
    sample = Sample(id="1", image=image, turns=(turn,), source="chat", with_objects=True)

    def segmenter() -> CachedSegmenter:
        return CachedSegmenter(counting, PanopticMapCache(tmp_path / "maps", 10**9))

    preparation = Preparation(processor=processor, train=LoopConfig(MAX_LENGTH=2048))
    for step in range(3):
        example = Conversations([sample], segmenter(), preparation).example(0, step)
        assert counting.count == 1
    grid = processor.grid
    expected = crayon_prompt(
        Counting().segment([DecodedImage(np.zeros((1, 1, 3), np.uint8), "x")], (grid, grid))[0], grid
    )
    assert example.crayon is not None
    assert np.array_equal(example.crayon.semantic, expected.semantic) and example.crayon.objects == expected.objects
    engine = load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(tmp_path / "tiny"), segmenter())
    asked = replace(decode_image(image, engine.image_size), name="benchmark/other-name.png")
    reply = engine.answer([Query(asked, "What?")], Generation(num_beams=1, max_new_tokens=1))[0]
    assert "(#1 dog) [0.00, 0.00, 1.00, 0.50]" in reply.prompt and counting.count == 1


def test_the_other_name_of_the_cache() -> None:
    config, _ = read_training([], ["DATA.MAPS_CACHE", "some/maps"])
    assert config.SEGMENTER.CACHE == "some/maps"
    assert read_training([], ["SEGMENTER.CACHE", "off"])[0].SEGMENTER.CACHE == "off"
    both = ["DATA.MAPS_CACHE", "x", "SEGMENTER.CACHE", "x"]
    assert read_training([], both)[0].SEGMENTER.CACHE == "x"
    with pytest.raises(ConfigError, match=r"DATA\.MAPS_CACHE 'x' is another name of SEGMENTER\.CACHE, which is 'off'"):
        read_training([], ["DATA.MAPS_CACHE", "x", "SEGMENTER.CACHE", "off"])
