"""``validate``: what of a benchmark's files is there and sound, what is missing, and where it can be had.

Needs no model and no torch. All images are decoded, unless only a quick look is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs.common.words import and_more, some_of
from configs.common.words import shown as inline
from datasets.evaluation.scorable import UnscorableError, keep_scorable
from datasets.registration.formats.files import MissingImage
from datasets.registration.preflight import missing_files, missing_places
from datasets.types import DataError, ImageFile, ImageSource, Record, sources_of

from ..base import BenchmarkPipeline
from ..images import decode_image
from ..results.judging import needs_judge
from ..runtime.console import Progress, tell

SHOWN = 20
"""How many missing, damaged or malformed things of a kind are named before the rest is counted."""
LONGEST = 1000
"""Characters of a line of a prompt, or of a reason."""
_THREADS = 8


def validate_all(
    pipelines: Sequence[BenchmarkPipeline], roots: Sequence[Path], *, quick: bool = False, shown: int | None = SHOWN
) -> bool:
    """Check several benchmarks one after another, and sum up.

    Args:
        pipelines: of the benchmarks.
        roots: dataset folders.
        quick: look whether images are there, without decoding them.
        shown: how many things of a kind are named; None for all.
    Returns: whether all can be run as they are.

    Raises:
        DataError: see `validate`.
    """
    there = [f"{root}{'' if root.is_dir() else ' (no such folder)'}" for root in roots]
    _say(f"dataset folders: {', '.join(there)}")
    complete = [validate(pipeline, roots, quick=quick, shown=shown) for pipeline in pipelines]
    if len(complete) > 1:
        lacking = [p.declaration.dataset for p, whole in zip(pipelines, complete, strict=True) if not whole]
        listed = f"; incomplete: {', '.join(lacking)}" if lacking else ""
        _say(f"{sum(complete)} of {len(complete)} benchmarks are complete{listed}")
    return all(complete)


def validate(
    pipeline: BenchmarkPipeline, roots: Sequence[Path], *, quick: bool = False, shown: int | None = SHOWN
) -> bool:
    """Check a benchmark's files and its declaration, and print the findings with one prompt.

    Args:
        pipeline: of the benchmark.
        roots: dataset folders.
        quick: see `validate_all`.
        shown: see `validate_all`.
    Returns: whether it can be run as it is.

    Raises:
        DataError: the declaration names no such reader or scorer, or an option that it does not have.
    """
    benchmark = pipeline.declaration
    _say(f"{inline(benchmark.title)} ({benchmark.dataset}), version {benchmark.version}")
    _say(f"  source: {inline(benchmark.source, LONGEST)}")
    judged = "; a judge helps, if one is configured" if needs_judge(benchmark) else ""
    _say(f"  scorer: {benchmark.scorer} ({benchmark.rules} rules){judged}")
    absent = missing_places(benchmark, roots)
    _list("  MISSING files and folders", [" or ".join(map(str, places)) for places in absent], None)
    readable = not missing_files(benchmark, roots)
    complete = _check(pipeline, roots, readable, quick, shown) and not absent
    if not complete and benchmark.download:
        _say("  where to get them:", *(f"    {page}" for page in benchmark.download))
    _say("  complete" if complete else "  incomplete")
    return complete


def _check(pipeline: BenchmarkPipeline, roots: Sequence[Path], readable: bool, quick: bool, shown: int | None) -> bool:
    """Read the records, look at their images and word their questions, as far as the files allow."""
    try:
        records, bad, check = keep_scorable(pipeline, *pipeline.load(roots))
    except UnscorableError as error:
        _say(f"  UNSCORABLE: {error}")
        return False
    except DataError as error:
        if readable:  # else it only repeats what was said
            _say(f"  UNREADABLE: {error}")
        return False
    images = {image.name: image for record in records for image in sources_of(record.image)}
    maps = {f"map {one.name}": one for record in records if isinstance(one := record.meta.get("map"), ImageFile)}
    withheld = sum(record.target is None for record in records)
    _say(f"  questions: {len(records)}" + (f", {withheld} without an answer to compare with" if withheld else ""))
    _say(f"  images: {len(images)}, questions without one: {sum(record.image is None for record in records)}")
    images |= maps
    missing = {name: reason for name, image in images.items() if (reason := _missing(image)) is not None}
    sound = [image for name, image in images.items() if name not in missing]
    damaged = [] if quick else _damaged(pipeline.declaration.dataset, sound)
    _list("  MISSING images", list(_by_folder(images, missing, shown)), shown, len(missing))
    _list("  DAMAGED images", damaged, shown)
    _list("  MALFORMED records", [f"{item.where}: {item.reason}" for item in bad], shown)
    _say(f"  {check.sentence}")
    return _prompts(pipeline, records) and bool(records) and not missing and not damaged and not bad


def _missing(image: ImageSource) -> str | None:
    """What is known of an image that is not there; None if it is."""
    if isinstance(image, MissingImage):
        return image.reason
    return "" if isinstance(image, ImageFile) and not os.path.isfile(image.path) else None


def _by_folder(images: dict[str, ImageSource], missing: dict[str, str], shown: int | None) -> Iterator[str]:
    """Missing images, each folder named once and its images by their names in it."""
    folders: dict[Path, list[str]] = {}
    for name, reason in missing.items():
        image = images[name]
        if isinstance(image, ImageFile):
            folders.setdefault(image.path.parent, []).append(image.path.name)
        else:
            yield reason
    for folder, names in folders.items():
        if folder.is_dir():
            yield f"{folder}: {some_of(names, shown)}"
        else:
            yield f"{folder} (no such folder): {some_of(names, shown)}"


def _damaged(dataset: str, images: Sequence[ImageSource]) -> list[str]:
    """What is wrong with images that cannot be decoded, in their order."""

    def look(image: ImageSource) -> str:
        try:
            decode_image(image, None)
        except DataError as error:
            return str(error)
        return ""

    found = []
    workers = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, Progress(dataset, len(images), shown=True, unit="images") as progress:
        for reason in pool.map(look, images):
            progress.advance(1)
            if reason:
                found.append(reason)
    return found


def _prompts(pipeline: BenchmarkPipeline, records: Sequence[Record]) -> bool:
    """Word all questions, and show the first."""
    try:
        prompts = [pipeline.prompt(record) for record in records]
    except DataError as error:
        _say(f"  MISSING: {error}")
        return False
    for record, prompt in zip(records[:1], prompts[:1], strict=True):
        lines = (f"    | {inline(line, LONGEST)}" for line in prompt.split("\n"))
        _say(f"  first question ({inline(record.id)}):", *lines)
    return True


def _list(title: str, items: Sequence[Any], shown: int | None, number: int | None = None) -> None:
    if items:
        rest = and_more(len(items), shown)
        count = len(items) if number is None else number
        _say(f"{title}: {count}", *(f"    {inline(str(item), LONGEST)}" for item in items[:shown]))
        _say(*([f"    {rest} (--all names them)"] if rest else []))


def _say(*lines: str) -> None:
    tell("".join(f"{line}\n" for line in lines))
