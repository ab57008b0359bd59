"""Maps kept next to a run: read back as they were made, whatever a kill or a stranger left in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collavo.crayon import crayon_prompt
from modeling.segmenters.base import PanopticMap, Segment
from pipeline.results.browse.crayons import LONGEST_SIDE, CrayonLog, kept_map, kept_maps, read_crayons, remove_crayons

DOG, SKY = 16, 119


def dogs(side: int = 8) -> PanopticMap:
    ids = np.zeros((side, side), np.int32)
    ids[: side // 2] = 3
    ids[side // 2 :, : side // 2] = 1
    ids[side // 2 :, side // 2 : side * 3 // 4] = 2
    segments = [
        Segment(id=1, category_id=DOG, score=1.0),
        Segment(id=2, category_id=DOG, score=1.0),
        Segment(id=3, category_id=SKY, score=1.0),
    ]
    return PanopticMap(id_map=ids, segments=tuple(segments))


def test_a_map_keeps_classes_numbers_and_boxes() -> None:
    panoptic = dogs()
    kept = kept_map(panoptic, crayon_prompt(panoptic, 8))
    assert [(name, number) for name, number, _ in kept.objects] == [("dog", 1), ("dog", 2), ("sky", 1)]
    assert kept.objects[1][2] == [0.5, 0.5, 0.75, 1.0]
    assert (kept.cells() == panoptic.id_map).all()
    assert kept.words == "2 dog, 1 sky"


def test_a_fine_map_is_sampled() -> None:
    panoptic = dogs(512)
    kept = kept_map(panoptic, crayon_prompt(panoptic, 8))
    assert kept.side == LONGEST_SIDE
    assert (kept.cells() == panoptic.id_map[::8, ::8]).all()


@given(cells=st.lists(st.integers(0, 2), min_size=16, max_size=16))
def test_any_map_is_read_back(cells: list[int], tmp_path_factory: object) -> None:
    folder = tmp_path_factory.mktemp("maps")  # type: ignore[attr-defined]
    ids = np.array(cells, np.int32).reshape(4, 4)
    segments = [Segment(id=number, category_id=DOG, score=1.0) for number in (1, 2)]
    panoptic = PanopticMap(id_map=ids, segments=tuple(s for s in segments if (ids == s.id).any()))
    crayon = crayon_prompt(panoptic, 4)
    with CrayonLog(folder, 0) as log:
        log.add("a.jpg", panoptic, crayon)
    read = read_crayons(folder)["a.jpg"]
    order = {0: 0} | {item.segment_id: index for index, item in enumerate(crayon.objects, start=1)}
    assert (read.cells() == np.vectorize(order.__getitem__)(ids)).all()


def test_torn_and_strange_lines_are_skipped(tmp_path: Path) -> None:
    panoptic = dogs()
    with CrayonLog(tmp_path, 1) as log:
        log.add("a.jpg", panoptic, crayon_prompt(panoptic, 8))
        log.add("a.jpg", panoptic, crayon_prompt(panoptic, 8))
    file = tmp_path / "crayons" / "process-1.jsonl"
    whole = file.read_bytes().strip()
    assert whole.count(b"\n") == 0, "an image is kept once"
    strange = [
        b'{"image": "b", "side": 2, "runs": [9, 4], "objects": []}',
        b'{"image": "b", "side": 2, "runs": [0, 5], "objects": []}',
        b'{"image": "b", "side": 1e9, "runs": [0, 1], "objects": []}',
        b'{"image": "b", "side": 1, "runs": [0, 1], "objects": [["dog", 1, "box"]]}',
        b"[1]",
        whole[: len(whole) // 2],
    ]
    file.write_bytes(b"\n".join([*strange, b""]))
    assert read_crayons(tmp_path) == {}
    with CrayonLog(tmp_path, 1) as log:
        log.add("c.jpg", panoptic, crayon_prompt(panoptic, 8))
    assert list(read_crayons(tmp_path / "score" / "rules")) == ["c.jpg"], "what score wrote below finds them too"
    remove_crayons(tmp_path)
    assert read_crayons(tmp_path) == {}


def test_an_engine_that_makes_no_maps_is_left_alone(tmp_path: Path) -> None:
    with kept_maps(object(), tmp_path, 0):
        pass
    assert list(tmp_path.iterdir()) == []
