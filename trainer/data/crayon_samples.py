"""Crayon instructions from panoptic maps: joins what the model is shown with what it is asked.

`datasets` may know nothing of panoptic maps and `collavo` nothing of training files, so that they meet here. Objects,
numbers and boxes are those of `collavo.crayon.crayon_prompt`, at the model's own token grid, written as prompts write
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collavo.crayon import CrayonPrompt
from collavo.instructions import AskedClasses, Kind, make_instruction, possible_kinds
from datasets.instruct.panoptic import PanopticImage
from datasets.instruct.types import Sample, Turn
from modeling.segmenters.coco import COCO_PANOPTIC, display_name

ALL_NAMES = tuple(display_name(category.name) for category in COCO_PANOPTIC)


def crayon_sample(
    image: PanopticImage,
    crayon: CrayonPrompt,
    kinds: Sequence[Kind],
    seed: Sequence[int],
    names: tuple[str, ...] = ALL_NAMES,
) -> Sample | None:
    """Draw one instruction about an image.

    Args:
        image: with the classes annotated in it: those that the map is too coarse to show are never called absent.
        crayon: what the model is shown of it; the answer says the same.
        kinds: what may be asked, each as likely as the others if the image allows it.
        seed: numbers from 0, for instance of run, epoch and image; the same ones give the same instruction.
        names: classes that questions may be about.
    Returns: the sample, without object list in its prompt; None if the image allows none of the kinds.
    """
    rng = np.random.default_rng([*seed])
    shown = {item.category for item in crayon.objects}
    unsure = frozenset(display_name(name) for name in image.categories) - shown
    classes = AskedClasses(names=names, unsure=unsure)
    possible = possible_kinds(crayon.objects, kinds, classes)
    if not possible:
        return None
    kind = possible[int(rng.integers(len(possible)))]
    asked = make_instruction(kind, crayon.objects, classes, rng)
    turn = Turn(question=asked.question, answer=asked.answer)
    number = "-".join(map(str, seed))
    return Sample(id=f"{image.image.name}@{number}", image=image.image, turns=(turn,), source=kind, with_objects=False)
