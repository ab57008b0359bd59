"""``show``: a few images of a benchmark, each with its panoptic map, a question, and what the model says to it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from collavo.crayon import crayon_prompt
from collavo.errors import NonFiniteError
from configs.common.words import shown as inline
from configs.load import ConfigError
from datasets.roots import data_roots
from datasets.types import DataError, Record
from modeling.segmenters.base import PanopticMap

from ..base import BenchmarkPipeline
from ..benchmarks import select_pipeline
from ..images import decode_image
from ..runtime.console import tell, write_out
from ..runtime.errors import RunError
from ..runtime.files import format_of, make_folder, write_image
from ..runtime.libraries import quiet_libraries
from .drawing import segment_colours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collavo.engine import Engine, Generation, Query

    from ..catalog import Catalog
    from ..config import EvalConfig

SIDE, GAP, TEXT = 224, 16, 420
"""Pixels: side of an image on the sheet, space around it, width of the text."""

LONGEST = 1000
"""Characters of a line of the question, or of a reply."""

_COLUMNS = 46
_TERMINAL = 32
"""Characters a side of an image in a terminal; two rows of it share a line."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ShownQuestion:
    """One question with all that belongs to it.

    Attributes:
        record: the question.
        asked: as it was put to the model, without template.
        image: RGB, uint8 (side, side, 3).
        coloured: its panoptic map in colours, of the same shape.
        objects: what the map holds, in words.
        reply: of the model.
        verdict: right, wrong, or "" where a judge would decide.
    """

    record: Record
    asked: str
    image: Pixels
    coloured: Pixels
    objects: str
    reply: str
    verdict: str


def show(config: EvalConfig, catalog: Catalog, num: int, out: Path, environment: Mapping[str, str]) -> int:
    """Ask a few questions of the first benchmark that ``DATASETS.TEST`` names, and show them.

    Args:
        config: resolved.
        catalog: of the declared benchmarks.
        num: how many.
        out: file of the sheet, a PNG.
        environment: may name dataset folders.
    Returns: the exit code.

    Raises:
        ConfigError, DataError, RunError, CheckpointError, SegmenterError: something is missing or does not fit.
    """
    benchmark = catalog.select(config.DATASETS.TEST)[0]
    pipeline = select_pipeline(config.PIPELINE, config.declared(benchmark))
    records, _ = pipeline.load(data_roots(config.DATASETS.ROOT, environment))
    chosen = spread(records, num)
    if not chosen:
        raise DataError(f"{benchmark.dataset}: it has no question with an image")
    try:
        format_of(out)
    except ValueError as error:
        raise ConfigError(f"--out: {error}") from None
    make_folder(out.parent)
    shown = _ask(config, pipeline, chosen)
    write_image(out, sheet(shown))
    for one in shown:
        write_out(in_words(one, sys.stdout.isatty()))
    tell(f"images, maps and replies are in {out}\n")
    return 0


def spread(records: Sequence[Record], num: int) -> list[Record]:
    """Records with an image, evenly spread over the data, each of another image as far as there are so many."""
    first = {record.image.name: record for record in reversed(records) if record.image is not None}
    imaged = [record for record in records if record.image is not None and first[record.image.name] is record]
    count = min(num, len(imaged))
    return [imaged[i * len(imaged) // count] for i in range(count)]


def _ask(config: EvalConfig, pipeline: BenchmarkPipeline, records: Sequence[Record]) -> list[ShownQuestion]:
    import torch

    from collavo.engine import Generation, Query

    from ..models.collavo import CoLLaVOSource

    quiet_libraries()
    source = CoLLaVOSource(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    engine = source.engine()
    side = engine.image_size
    images = [decode_image(r.image, side) for r in records if r.image is not None]
    declared = pipeline.declaration
    asked = [pipeline.prompt(record) for record in records]
    queries = [Query(image, text) for image, text in zip(images, asked, strict=True)]
    beams, length = declared.num_beams, declared.max_new_tokens
    generation = Generation(num_beams=beams, max_new_tokens=length, **config.profile.search())
    replies = _replies(engine, queries, generation)
    scored = pipeline.evaluate(zip(records, replies, strict=True)).scored
    verdicts = {s.record.id: s.score.value for s in scored}
    maps = source.segmenter().segment(images, (side, side))
    words = {None: "", 0.0: "wrong", 1.0: "right"}
    return [
        ShownQuestion(
            record=record,
            asked=text,
            image=image.pixels,
            coloured=segment_colours(panoptic),
            objects=objects_of(panoptic),
            reply="(none: its scores are not finite)" if reply is None else reply,
            verdict=words.get(verdicts[record.id], "partly right"),
        )
        for record, text, image, panoptic, reply in zip(records, asked, images, maps, replies, strict=True)
    ]


def _replies(engine: Engine, queries: Sequence[Query], generation: Generation) -> list[str | None]:
    """What the model says to each question; None where its scores are not finite.

    Raises:
        RunError: they are not for any question.
    """
    try:
        return [reply.text for reply in engine.answer(queries, generation)]
    except NonFiniteError as error:
        if not any(error.replies):
            raise RunError(str(error)) from error
        return [None if reply is None else reply.text for reply in error.replies]


def objects_of(panoptic: PanopticMap) -> str:
    """Classes of a map with their numbers: ``3 dog, 1 sky``."""
    counts: dict[str, int] = {}
    for item in crayon_prompt(panoptic, panoptic.id_map.shape[0]).objects:
        counts[item.category] = counts.get(item.category, 0) + 1
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def sheet(shown: Sequence[ShownQuestion]) -> Image.Image:
    """A row for each question: image, map, words."""
    row = SIDE + GAP
    image = Image.new("RGB", (2 * row + TEXT + 2 * GAP, len(shown) * row + GAP), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    for number, one in enumerate(shown):
        top = GAP + number * row
        for column, pixels in enumerate((one.image, one.coloured)):
            scaled = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            image.paste(scaled, (GAP + column * row, top))
        lines = [line for text in _lines(one) for line in textwrap.wrap(text, _COLUMNS) or [""]]
        pen.multiline_text((2 * row + GAP, top), "\n".join(lines), fill="black", font=font, spacing=5)
    return image


def _lines(one: ShownQuestion) -> list[str]:
    target = one.record.target
    wanted = target if isinstance(target, str) else "; ".join(map(str, target or ("withheld",)))
    verdict = f"  ({one.verdict})" if one.verdict else ""
    said = f"model: {inline(one.reply, LONGEST)}{verdict}"
    asked = [inline(line, LONGEST) for line in one.asked.strip().split("\n")]
    return [*asked, "", f"answer: {inline(wanted)}", said, "", inline(one.objects, LONGEST)]


def in_words(one: ShownQuestion, colours: bool) -> str:
    """For the terminal: image and map side by side where it shows colours, then the words."""
    lines = [f"  {line}".rstrip() for line in _lines(one)]
    if colours:
        lines = [*blocks(np.concatenate([shrunk(one.image), shrunk(one.coloured)], axis=1)), *lines]
    return "\n".join([*lines, "", ""])


def shrunk(pixels: Pixels) -> Pixels:
    """An image of `_TERMINAL` pixels a side."""
    return np.asarray(Image.fromarray(pixels).resize((_TERMINAL, _TERMINAL), Image.Resampling.BOX))


def blocks(pixels: Pixels) -> list[str]:
    """Lines of coloured half blocks, two rows of pixels a line, by the terminal's 24-bit colours."""
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]}m\x1b[48;2;{b[0]};{b[1]};{b[2]}m\N{UPPER HALF BLOCK}"
            for a, b in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return lines
