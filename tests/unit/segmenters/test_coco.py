"""The category table, against the names that the golden data lists."""

import json

from modeling.segmenters.coco import COCO_PANOPTIC, INDEX_BY_COCO_ID, INDEX_BY_NAME, NUM_CLASSES, display_name
from tests.fixtures import fixture_dir


def test_names_order_and_things() -> None:
    golden = json.loads((fixture_dir("xdecoder") / "coco_classes.json").read_text())
    names = [category.name for category in COCO_PANOPTIC]
    assert names == golden["classes"][:NUM_CLASSES]
    assert [display_name(name) for name in names] == golden["stripped"][:NUM_CLASSES]
    assert [category.is_thing for category in COCO_PANOPTIC] == [True] * 80 + [False] * 53


def test_ids_are_distinct_and_ascending() -> None:
    ids = [category.id for category in COCO_PANOPTIC]
    assert ids == sorted(set(ids))
    assert (ids[0], ids[79], ids[80], ids[-1]) == (1, 90, 92, 200)
    assert all(INDEX_BY_COCO_ID[c.id] == INDEX_BY_NAME[c.name] == i for i, c in enumerate(COCO_PANOPTIC))
