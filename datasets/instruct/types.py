"""What passes between training files, the builder of instructions and the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from ..registration.formats.files import without_bad
from ..types import BadRecord, ImageFile, ImageSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One exchange of a conversation.

    Attributes:
        question: the user's text, without template and object list.
        answer: the reply to be learned, without the end tag.
    """

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One conversation to train on.

    Attributes:
        id: unique in its source; the messages of the trainer name it.
        image: the image, or None for a text-only conversation.
        turns: at least one.
        source: where it comes from: the file's name, or the kind of instruction.
        with_objects: whether the first user turn lists the image's objects, as evaluation does. Crayon instructions
            ask for just these objects: their prompt must not hold the list, or it would give the answer away.
        independent: whether the turns are conversations of their own that have only the image in common: no turn
            sees another.
        system: stands in the place of the template's own first sentence; "" for that one.
    """

    id: str
    image: ImageSource | None
    turns: tuple[Turn, ...]
    source: str
    with_objects: bool
    independent: bool = False
    system: str = ""

    def __post_init__(self) -> None:
        """Refuse what no trainer could use.

        Raises:
            ValueError: there is no turn, or an object list is wanted without an image.
        """
        if not self.turns:
            raise ValueError(f"sample {self.id} of {self.source} has no turn")
        if self.with_objects and self.image is None:
            raise ValueError(f"sample {self.id} of {self.source} has no image whose objects could be told")


def share_images(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Put conversations of one turn on the same image together, as independent turns of one sample.

    Args:
        samples: in any order; those of several turns, and those without image, stay as they are.
        most: turns of a sample.
    Returns: samples in the order of the first conversation of each.
    """
    if most == 1:
        return list(samples)
    kept: list[list[Sample]] = []
    open_for: dict[tuple[ImageSource, str], list[Sample]] = {}
    for sample in samples:
        if sample.image is None or len(sample.turns) > 1:
            kept.append([sample])
            continue
        key = sample.image, sample.system
        group = open_for.get(key)
        if group is None or len(group) == most:
            group = open_for[key] = []
            kept.append(group)
        group.append(sample)
    return [_joined(group) if len(group) > 1 else group[0] for group in kept]


def _joined(group: Sequence[Sample]) -> Sample:
    name = f"{group[0].id} and {len(group) - 1} more on its image"
    return replace(group[0], id=name, turns=tuple(sample.turns[0] for sample in group), independent=True)


@dataclass(frozen=True, kw_only=True)
class MissingImageRecord(BadRecord):
    """A record whose image is not on this machine; otherwise it may be sound."""


@dataclass(frozen=True, kw_only=True)
class GatheredSamples:
    """What a file gave.

    Attributes:
        samples: in the order of the file.
        bad: malformed records, those without their image included.
        num_missing: how many of ``bad`` lack only their image.
        num_renamed: samples whose image was found under another suffix than the file names.
    """

    samples: tuple[Sample, ...]
    bad: tuple[BadRecord, ...]
    num_missing: int
    num_renamed: int

    def summary(self) -> str:
        """One line for the log: what is used, what is not, and why."""
        malformed = len(self.bad) - self.num_missing
        parts = [f"{len(self.samples)} samples"]
        parts += [f"{malformed} malformed records skipped"] if malformed else []
        parts += [f"{self.num_missing} skipped, their images are missing"] if self.num_missing else []
        parts += [f"{self.num_renamed} images found under another suffix"] if self.num_renamed else []
        return "; ".join(parts)


def gather_samples(items: Iterable[Sample | BadRecord]) -> GatheredSamples:
    """Read to the end, and count what was skipped or found under another suffix."""
    samples, bad = without_bad(items)
    return GatheredSamples(
        samples=tuple(samples),
        bad=tuple(bad),
        num_missing=sum(isinstance(item, MissingImageRecord) for item in bad),
        num_renamed=sum(_renamed(sample.image) for sample in samples),
    )


def _renamed(image: ImageSource | None) -> bool:
    return isinstance(image, ImageFile) and image.path.suffix != PurePosixPath(image.name).suffix
