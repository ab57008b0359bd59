"""X-Decoder's texts, image preparation, post-processing and whole segmenter against golden data of the reference."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures import fixture_dir
from tests.parity import xdecoder
from tests.parity import xdecoder_rules as rules
from tests.parity.differences import Difference

PARTS = [
    rules.compare_text,
    rules.compare_token_ids,
    rules.compare_preprocess,
    rules.compare_mask_resize,
    rules.compare_postprocess,
    rules.compare_panoptic,
    xdecoder.compare_checkpoint,
    xdecoder.compare_segmenter,
]


@pytest.mark.parametrize("compare", PARTS, ids=lambda part: part.__name__)
def test_parity(compare: Callable[[Path], Iterator[Difference]]) -> None:
    differences = list(compare(fixture_dir("xdecoder")))
    assert differences
    assert [d for d in differences if not d.ok] == []
