"""What gives an engine has the configuration's segmenter, too, with the cache of its maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.load import REPOSITORY
from pipeline.config import EvalConfig, read_configuration
from pipeline.models.choose import make_source
from pipeline.models.map_cache import CachedSegmenter

SEGMENTER = ("SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", str(REPOSITORY / "assets" / "tiny" / "segmenter"))


@pytest.mark.parametrize("kind", ["collavo", "hf", "endpoint"])
def test_every_kind_of_model_keeps_the_maps_of_its_segmenter(kind: str, tmp_path: Path) -> None:
    words = ("MODEL.NAME", kind, *SEGMENTER, "SEGMENTER.CACHE", str(tmp_path))
    config, _ = read_configuration([], words, EvalConfig)
    source = make_source(config, torch.device("cpu"))
    segmenter = source.segmenter()
    assert isinstance(segmenter, CachedSegmenter) and segmenter.cache is not None
    assert segmenter.cache.folder == tmp_path
    assert source.segmenter() is segmenter, "it is built once"
