"""Golden crayon prompts: index grids, object lists and whole prompts of recorded panoptic maps."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from collavo.crayon import CrayonPrompt, crayon_prompt, names_only, object_list
from collavo.template import CHAT, DEMO
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import COCO_PANOPTIC


def compare_crayon(golden: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Name and number of unequal items of every recorded quantity."""
    classes = [category.name for category in COCO_PANOPTIC]
    yield "crayon.classes", sum(a != b for a, b in zip(classes, golden["classes"], strict=True))
    for index, case in enumerate(golden["cases"]):
        wanted = case["reference"] if case["reference_is_correct"] else case["correct"]
        for quantity, unequal in _compare_case(case, wanted, golden["grid"]):
            yield f"crayon.{index}.{quantity} ({case['title']})", unequal


def _compare_case(case: dict[str, Any], wanted: dict[str, Any], grid: int) -> Iterator[tuple[str, int]]:
    segments = tuple(Segment(id=s["id"], category_id=s["label_id"], score=s["score"]) for s in case["segments"])
    if "error" in wanted:
        try:
            crayon_prompt(PanopticMap(np.array(case["map"], np.int32), segments), grid)
        except ValueError:
            yield "error", 0
        else:
            yield "error", 1
        return
    prompt = crayon_prompt(PanopticMap(np.array(case["map"], np.int32), segments), grid)
    if wanted.get("none"):
        yield "none", int(not _same(prompt, CrayonPrompt.empty(grid)))
    objects = object_list(prompt.objects)
    ours = {
        "semantic": prompt.semantic.tolist(),
        "numbering": prompt.numbering.tolist(),
        "object_text": objects,
        "names_only": names_only(prompt.objects),
        "eval_prompt": CHAT.prompt(objects, case["question"]),
        "demo_prompt": DEMO.prompt(objects, case["question"]),
        "objects": [
            {"id": item.segment_id, "category": item.category, "number": item.number, "box": list(item.box)}
            for item in prompt.objects
        ],
    }
    for quantity, value in ours.items():
        if quantity in wanted:
            yield quantity, int(value != wanted[quantity])


def _same(ours: CrayonPrompt, theirs: CrayonPrompt) -> bool:
    grids = np.array_equal(ours.semantic, theirs.semantic) and np.array_equal(ours.numbering, theirs.numbering)
    return grids and ours.objects == theirs.objects
