"""What is compared: the rows with their adapters, updates and data, and the kinds of questions that are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collavo.instructions import CRAYON_KINDS
from collavo.trainable_parts import IMAGE_CIT, VL_CIT
from datasets.instruct.order import steps_until
from trainer.config import ADAPTER_NAMES

IMAGE_SHARE = 0.5
LEFT_OUT = ("text", "colour", "refer")
"""What the visual instructions of step 2 are never about. Finding a thing by its colour (refer) rehearses colours."""

FORGOTTEN, REHEARSED = "not rehearsed", "rehearsed"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "text, options": ("choice/text",),
    "colour": ("colour",),
    "existence": ("existence",),
    "count": ("count",),
    "choice": ("choice/present",),
    "side": ("side",),
    "corner": ("corner",),
    "number+name": ("box_numbered",),
    FORGOTTEN: ("text", "choice/text", "colour"),
    REHEARSED: ("existence", "count", "choice/present", "side", "corner"),
}
"""Title -> kinds of questions whose share of right answers it is."""

KINDS = tuple(dict.fromkeys(kind for kinds in COLUMNS.values() for kind in kinds))


@dataclass(frozen=True, kw_only=True)
class ForgettingRow:
    """A row of the table.

    Attributes:
        name: of its files.
        title: as the table prints it.
        adapters: TRAIN.ADAPTERS; empty where there is no step 2.
        image: whether it has updates on object-level instructions.
        visual: whether it has updates on visual instructions.
    """

    name: str
    title: str
    adapters: str = ""
    image: bool = False
    visual: bool = False

    def ranks(self, total: int) -> dict[str, int]:
        """Adapter -> its rank, a total being shared out equally."""
        names = ADAPTER_NAMES[self.adapters] if self.adapters else ()
        return {name: total // len(names) for name in names}

    def updates(self, visual: int, seed: int) -> dict[str, int]:
        """Updates of step 2 on each kind of data.

        Args:
            visual: on visual instructions, in the rows that have them.
            seed: draws which update is on which kind, in the rows that have both.
        """
        image = steps_until("vl_cit", visual, seed, IMAGE_SHARE) - visual
        return {IMAGE_CIT: image if self.image else 0, VL_CIT: visual if self.visual else 0}

    def settings(self, rank: int) -> dict[str, object]:
        """Keys of step 2's configuration."""
        each = next(iter(self.ranks(rank).values()))
        share = IMAGE_SHARE if self.image and self.visual else float(self.image)
        return {
            **{"TRAIN.ADAPTERS": self.adapters, "TRAIN.IMAGE_SHARE": share},
            **{"LORA.R": each, "LORA.ALPHA": each, "DATA.KINDS": listed(CRAYON_KINDS)},
        }


def listed(words: Sequence[str]) -> str:
    """A list as a word of a command line."""
    return f"[{', '.join(words)}]"


BEFORE = ForgettingRow(name="before", title="before step 2")
IMAGE = ForgettingRow(name="image", title="Image-CIT alone", adapters="shared", image=True)
VISUAL = ForgettingRow(name="visual", title="VL-CIT alone", adapters="vl_only", visual=True)
SHARED = ForgettingRow(name="shared", title="one adapter", adapters="shared", image=True, visual=True)
DUAL = ForgettingRow(name="dual", title="Dual QLoRA", adapters="dual", image=True, visual=True)
ROWS = (BEFORE, IMAGE, VISUAL, SHARED, DUAL)
DIFFERENCES = ((IMAGE, BEFORE), (VISUAL, BEFORE), (SHARED, BEFORE), (DUAL, BEFORE), (DUAL, SHARED), (DUAL, VISUAL))
"""Of each pair, the first less the second."""
