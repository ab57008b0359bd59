"""X-Decoder's network against golden data of the reference, part by part and as a whole."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures import fixture_dir
from tests.parity import xdecoder_network as network
from tests.parity.differences import Difference

PARTS = [
    network.compare_position,
    network.compare_blocks,
    network.compare_backbone,
    network.compare_forward,
    network.compare_maps,
    network.compare_keys,
]


@pytest.mark.parametrize("compare", PARTS, ids=lambda part: part.__name__)
def test_parity(compare: Callable[[Path], Iterator[Difference]]) -> None:
    differences = list(compare(fixture_dir("xdecoder")))
    assert differences
    assert [d for d in differences if not d.ok] == []
