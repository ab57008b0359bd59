"""The files that a training run learns from, read as the configuration says. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.instruct.llava import read_conversations
from datasets.instruct.panoptic import PanopticImage, read_panoptic
from datasets.instruct.types import GatheredSamples, gather_samples
from datasets.registration.formats.files import without_bad
from datasets.types import BadRecord

from ..config import ConversationSource, TrainConfig
from .paths import located

PANOPTIC = "panoptic"
"""Name of the object-level instructions among the sources."""


def source_names(items: Sequence[ConversationSource]) -> list[str]:
    """Names of sources in the log: as the configuration says, or after their files; each is another one."""
    names: list[str] = []
    for item in items:
        name = item.NAME or Path(item.FILE).stem
        same = sum(other == name or other.startswith(f"{name} (") for other in [*names, PANOPTIC])
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def held_out_file(config: TrainConfig) -> ConversationSource | None:
    """The file of ``DATA.VALIDATION``, if it names one."""
    if not config.DATA.VALIDATION or config.DATA.held_out_share:
        return None
    return ConversationSource(FILE=config.DATA.VALIDATION)


def gather_source(config: TrainConfig, item: ConversationSource) -> GatheredSamples:
    """Read a file of conversations.

    Raises:
        DataError: it is unreadable.
    """
    return gather_samples(read_conversations(located(config, item.FILE), image_roots(config, item), check_images=True))


def image_roots(config: TrainConfig, item: ConversationSource) -> list[Path]:
    """Folders that the paths of a source's images count from."""
    if item.IMAGES:
        return [located(config, item.IMAGES)]
    own = located(config, item.FILE).parent
    if item.FILE != config.DATA.VALIDATION:
        return [own, Path()]
    return [*dict.fromkeys([*(located(config, one.IMAGES) for one in config.DATA.CONVERSATIONS if one.IMAGES), own])]


def read_images(config: TrainConfig) -> tuple[list[PanopticImage], list[BadRecord]]:
    """The annotated images of ``DATA.PANOPTIC``, and what is wrong with others.

    Raises:
        DataError: the annotations are unreadable.
    """
    source = config.DATA.PANOPTIC
    folder = located(config, source.IMAGES)
    return without_bad(read_panoptic(located(config, source.ANNOTATIONS), folder, check_images=True))
