"""``validate train``: what of a training run's data can be used, what is skipped and why; with a sample to look at.

Needs no torch. Every record is read and the header of every image opened (with ``--quick`` it is only looked for); with
a checkpoint in RESUME_FROM every conversation is encoded as well.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from collavo.checkpoint.examine import describe_checkpoint
from collavo.checkpoint.location import locate
from collavo.checkpoint.settings import settings_for
from collavo.template import CHAT, SYSTEM
from collavo.training_inputs import IGNORE_INDEX, ConversationError, TrainingInputs, training_inputs
from configs.common.pillow_errors import UNREADABLE
from configs.common.words import and_more
from configs.common.words import shown as inline
from datasets.instruct.panoptic import PanopticImage
from datasets.instruct.types import MissingImageRecord, Sample
from datasets.types import DataError, ImageFile, ImageSource
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from pipeline.images import decode_image
from pipeline.runtime.console import Progress, tell

from .config import ConversationSource, TrainConfig
from .data.paths import located, missing
from .data.reading import gather_source, held_out_file, read_images, source_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 1000
"""Characters of a line."""
LEARNED, END = ">>>", "<<<"
"""Around what the loss is computed on."""
_THREADS = 8
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""What the files of a format end with; where it is missing, the image is decoded."""
_TAIL = 4096


@dataclass(kw_only=True)
class SourceFindings:
    """What would be skipped of a source, by kind of reason.

    Attributes:
        used: samples or images that can be trained on.
        reasons: kind -> what is wrong with each.
    """

    used: int = 0
    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, reason: str) -> None:
        """Count something that would be skipped."""
        self.reasons.setdefault(kind, []).append(reason)

    @property
    def skipped(self) -> int:
        """How much would be skipped."""
        return sum(map(len, self.reasons.values()))

    def show(self, most: int | None) -> None:
        """Print the reasons.

        Args:
            most: how many of a kind are named; None for all.
        """
        for kind, listed in self.reasons.items():
            _say(f"  {kind}: {len(listed)}", *(f"    {inline(one, LONGEST)}" for one in listed[:most]))
            if rest := and_more(len(listed), most):
                _say(f"    {rest} (--all names them)")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes conversations as training does.

    Attributes:
        tokenizer: of the checkpoint.
        image_tokens: that an image stands for.
        max_length: longest row in tokens.
        object_list: whether prompts tell the objects in words.
    """

    tokenizer: PreTrainedTokenizerBase
    image_tokens: int
    max_length: int
    object_list: bool

    def encode(self, sample: Sample) -> TrainingInputs:
        """A sample as ids and labels; its objects are unknown here, as of an image without any.

        Raises:
            ConversationError: it cannot be trained on.
        """
        objects = None if sample.image is None else ""
        sample = replace(sample, with_objects=sample.with_objects and self.object_list)
        return training_inputs(self.tokenizer, CHAT, sample, objects, self.image_tokens, self.max_length)


def validate_training(config: TrainConfig, *, quick: bool, most: int | None) -> bool:
    """Check the data of a training run, and print the findings.

    Args:
        config: resolved.
        quick: look for images without opening them, and encode nothing.
        most: how many things of a kind are named; None for all.
    Returns: whether nothing would be skipped.

    Raises:
        CheckpointError: RESUME_FROM names a checkpoint that is unreadable.
    """
    _say(f"data of a training run, stage {config.TRAIN.STAGE}")
    if lacking := missing(config):
        _say("  MISSING", *(f"    {inline(line, LONGEST)}" for line in lacking))
        return False
    encoder = _encoder(config)
    sound = True
    if config.TRAIN.STAGE != "cit" or config.TRAIN.ADAPTERS != "vl_only":
        sound &= _panoptic(config, quick, most)
    if config.TRAIN.STAGE == "cit":
        has_map = _has_map(config, encoder is not None)
        items = [*config.DATA.CONVERSATIONS]
        names = source_names(items)
        if (file := held_out_file(config)) is not None:
            items, names = [*items, file], [*names, "DATA.VALIDATION"]
        for item, name in zip(items, names, strict=True):
            sound &= _conversations(config, item, name, None if quick else encoder, has_map, quick, most)
    _say("  nothing would be skipped" if sound else "  some of it would be skipped, as said above")
    return sound


def _encoder(config: TrainConfig) -> Encoder | None:
    """That of the checkpoint; None where none is named."""
    if not config.RESUME_FROM or config.TRAIN.STAGE == "segmenter":
        _say("  RESUME_FROM names no checkpoint of CoLLaVO: lengths in tokens are not checked")
        return None
    from collavo.tokenizer import load_tokenizer

    described = describe_checkpoint(locate(config.RESUME_FROM), fresh_crayon=True)
    settings = settings_for(described.folder, config.CRAYON, config.SEGMENTER, CHAT)
    sizes = described.sizes
    return Encoder(
        tokenizer=load_tokenizer(described.base),
        image_tokens=(sizes.image_size // sizes.vision_config.patch_size) ** 2,
        max_length=config.TRAIN.MAX_LENGTH,
        object_list=settings.crayon.object_list,
    )


def _has_map(config: TrainConfig, checkpoint: bool) -> Callable[[str], bool] | None:
    """Whether an image has a panoptic map; None where maps are made rather than read."""
    segmenter = config.SEGMENTER
    if checkpoint:
        segmenter = settings_for(locate(config.RESUME_FROM), config.CRAYON, config.SEGMENTER, CHAT).segmenter
    if segmenter.resolved().NAME != "precomputed":
        return None
    from modeling.segmenters.precomputed import build_precomputed

    try:
        return build_precomputed(segmenter.resolved()).has
    except SegmenterError as error:
        _say(f"  UNREADABLE: {inline(str(error), LONGEST)}")
        return lambda name: False


def _panoptic(config: TrainConfig, quick: bool, most: int | None) -> bool:
    """Check the annotated images; whether all of them can be used."""
    source, findings = config.DATA.PANOPTIC, SourceFindings()
    try:
        annotated, bad = read_images(config)
        maps = _panoptic_maps(config)
    except (DataError, SegmenterError) as error:
        _say(f"  UNREADABLE: {inline(str(error), LONGEST)}")
        return False
    for record in bad:
        kind = "MISSING images" if isinstance(record, MissingImageRecord) else "MALFORMED annotations"
        findings.add(kind, f"{record.where}: {record.reason}")
    files: list[ImageSource] = [*(one.image for one in annotated), *maps.values()]
    faults = _unreadable(source.ANNOTATIONS, files, quick)
    for one in annotated:
        _count_image(one, maps.get(one.image.name), faults, findings)
    _say(f"{inline(source.ANNOTATIONS)}: {len(annotated) + len(bad)} annotated images, {findings.used} can be used")
    findings.show(most)
    return not findings.skipped and findings.used > 0


def _count_image(
    image: PanopticImage, panoptic: ImageFile | None, faults: dict[ImageSource, str], findings: SourceFindings
) -> None:
    if image.image in faults:
        findings.add("UNREADABLE images", faults[image.image])
    elif panoptic is None:
        findings.add("images without a MAP", image.image.name)
    elif panoptic in faults:
        findings.add("UNREADABLE maps", faults[panoptic])
    else:
        findings.used += 1


def _panoptic_maps(config: TrainConfig) -> dict[str, ImageFile]:
    """The PNG of every annotated image, by the image's name."""
    from modeling.segmenters.precomputed import build_precomputed

    source = config.DATA.PANOPTIC
    folder = located(config, source.MAPS)
    file = str(located(config, source.ANNOTATIONS))
    segmenter = build_precomputed(SegmenterConfig(NAME="precomputed", PATH=file, IMAGES=str(folder)))
    return {image: ImageFile(folder / name, f"map {name}") for image, name in segmenter.files()}


def _conversations(
    config: TrainConfig,
    item: ConversationSource,
    name: str,
    encoder: Encoder | None,
    has_map: Callable[[str], bool] | None,
    quick: bool,
    most: int | None,
) -> bool:
    """Check a file of conversations, and show one of them; whether all can be used."""
    try:
        gathered = gather_source(config, item)
    except DataError as error:
        _say(f"  UNREADABLE: {inline(str(error), LONGEST)}")
        return False
    findings = SourceFindings()
    for record in gathered.bad:
        kind = "MISSING images" if isinstance(record, MissingImageRecord) else "MALFORMED records"
        findings.add(kind, f"{record.where}: {record.reason}")
    faults = _unreadable(name, [one.image for one in gathered.samples if one.image is not None], quick)
    lengths: list[int] = []
    example: Sample | None = None
    for sample in gathered.samples:
        reason = _unusable(sample, faults, has_map, encoder, lengths)
        if reason is None:
            findings.used += 1
            example = example or sample
        else:
            findings.add(*reason)
    total = len(gathered.samples) + len(gathered.bad)
    texts = sum(one.image is None for one in gathered.samples)
    limited = f", at most {item.MAX_SAMPLES} are drawn" if item.MAX_SAMPLES is not None else ""
    _say(f"{inline(name)} ({inline(item.FILE)}): {total} records, {findings.used} can be used{limited}")
    _say(f"  {texts} without an image; {sum(len(one.turns) for one in gathered.samples)} answers")
    if lengths:
        cut = sum(length >= config.TRAIN.MAX_LENGTH for length in lengths)
        mean = sum(lengths) / len(lengths)
        _say(f"  {mean:.0f} tokens on average, {max(lengths)} at most; {cut} are cut at TRAIN.MAX_LENGTH")
    findings.show(most)
    if example is not None:
        _say(f"  sample {inline(example.id)}; the loss is on what stands between {LEARNED} and {END}:")
        _say(*(f"    | {inline(line, LONGEST)}" for line in sample_with_marks(example, encoder).split("\n")))
    return not findings.skipped and findings.used > 0


def _unusable(
    sample: Sample,
    faults: dict[ImageSource, str],
    has_map: Callable[[str], bool] | None,
    encoder: Encoder | None,
    lengths: list[int],
) -> tuple[str, str] | None:
    """Kind and reason of a sample that would be skipped; the length of one that would not is noted."""
    if sample.image is not None and sample.image in faults:
        return "UNREADABLE images", faults[sample.image]
    if sample.image is not None and has_map is not None and not has_map(sample.image.name):
        return "images without a MAP", sample.image.name
    if encoder is not None:
        try:
            lengths.append(encoder.encode(sample).length)
        except ConversationError as error:
            return "conversations that CANNOT BE ENCODED", str(error)
    return None


def sample_with_marks(sample: Sample, encoder: Encoder | None) -> str:
    """A sample as it is trained on, with marks around what is learned.

    Args:
        sample: that can be trained on.
        encoder: of the checkpoint; None to show the texts alone.
    """
    if encoder is None:
        objects = None if sample.image is None else ""
        first, *later = sample.turns
        text = CHAT.prompt(objects, first.question, with_objects=sample.with_objects, system=sample.system or SYSTEM)
        text += f"{LEARNED}{first.answer}{CHAT.end.rstrip()}{END}\n"
        for turn in later:
            text += f"{CHAT.next_turn(turn.question)}{LEARNED}{turn.answer}{CHAT.end.rstrip()}{END}\n"
        return text.rstrip("\n")
    inputs = encoder.encode(sample)
    return "".join(f"{LEARNED}{text}{END}" if learned else text for learned, text in _runs(inputs, encoder.tokenizer))


def _runs(inputs: TrainingInputs, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[bool, str]]:
    """Stretches of ids that are learned, or are not, as text."""
    start, ids, labels = 0, inputs.input_ids, inputs.labels
    for end in range(1, len(ids) + 1):
        learned = labels[start] != IGNORE_INDEX
        if end == len(ids) or (labels[end] != IGNORE_INDEX) != learned:
            text = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            yield learned, str(text)
            start = end


def _unreadable(name: str, images: Sequence[ImageSource], quick: bool) -> dict[ImageSource, str]:
    """What is wrong with images whose header cannot be read."""
    distinct = list(dict.fromkeys(images))
    if quick or not distinct:
        return {}
    found: dict[ImageSource, str] = {}
    workers = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, Progress(name, len(distinct), shown=True, unit="images") as progress:
        for image, reason in zip(distinct, pool.map(_header_fault, distinct), strict=True):
            progress.advance(1)
            if reason:
                found[image] = reason
    return found


def _header_fault(image: ImageSource) -> str:
    """Why an image cannot be used, by its header and end; "" where nothing speaks against it."""
    try:
        with image.path.open("rb") if isinstance(image, ImageFile) else io.BytesIO(image.read()) as file:
            with Image.open(file) as opened:
                mark = _ENDS.get(opened.format or "")
            whole = mark is None or mark in _tail(file)
    except UNREADABLE as error:
        reason = "is no image of a known format" if "identify" in str(error) else f"{type(error).__name__}: {error}"
        return f"{image.name}: {reason}"
    if whole:
        return ""
    try:
        decode_image(image, None)  # what some cameras write behind the end is no fault
    except DataError as error:
        return str(error)
    return ""


def _tail(file: BinaryIO) -> bytes:
    """The last bytes of a file."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _TAIL))
    return file.read()


def _say(*lines: str) -> None:
    tell("".join(f"{line}\n" for line in lines))
