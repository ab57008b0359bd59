"""``validate``: what of a benchmark's files is there, what is missing and where it is expected; no model, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.common.words import shown
from datasets.evaluation.scorable import UnscorableError
from datasets.types import DataError, ImageFile, Record

from .base import BenchmarkPipeline
from .judging import needs_judge
from .progress import tell
from .scoring_check import scorable

SHOWN = 5
"""How many missing or malformed things are named before the rest is counted."""
LONGEST = 1000
"""Characters of a line of a prompt, or of a reason."""


def validate(pipeline: BenchmarkPipeline, roots: Sequence[Path]) -> bool:
    """Check a benchmark's files and its declaration, and print the findings with one prompt.

    Args:
        pipeline: of the benchmark.
        roots: dataset folders.
    Returns: whether it can be run as it is.

    Raises:
        DataError: the declaration names no such reader or scorer, or an option that it does not have.
    """
    benchmark = pipeline.declaration
    _say(f"{shown(benchmark.title)} ({benchmark.dataset}), version {benchmark.version}")
    _say(f"  source: {shown(benchmark.source, LONGEST)}")
    _say(f"  folders: {', '.join(map(str, roots))}")
    judged = "; a judge helps, if one is configured" if needs_judge(benchmark) else ""
    _say(f"  scorer: {benchmark.scorer} ({benchmark.rules} rules){judged}")
    try:
        records, bad, check = scorable(pipeline, *pipeline.load(roots))
    except UnscorableError as error:
        _say(f"  UNSCORABLE: {error}")
        return False
    except DataError as error:
        _say(f"  MISSING: {error}")
        return False
    images = {record.image.name: record.image for record in records if record.image is not None}
    files = [image for image in images.values() if isinstance(image, ImageFile)]
    missing: list[Any] = [image.path for image in files if not image.path.is_file()]
    missing += [reason for image in images.values() if (reason := getattr(image, "reason", None))]
    withheld = sum(record.target is None for record in records)
    _say(f"  questions: {len(records)}" + (f", {withheld} without an answer to compare with" if withheld else ""))
    _say(f"  pictures: {len(images)}, questions without one: {sum(record.image is None for record in records)}")
    _list(f"  MISSING pictures: {len(missing)}", missing)
    _list(f"  MALFORMED records: {len(bad)}", [f"{item.where}: {item.reason}" for item in bad])
    _say(f"  {check.sentence}")
    complete = _prompts(pipeline, records) and bool(records) and not missing and not bad
    _say("  complete" if complete else "  incomplete")
    return complete


def _prompts(pipeline: BenchmarkPipeline, records: Sequence[Record]) -> bool:
    """Word all questions, and show the first."""
    try:
        prompts = [pipeline.prompt(record) for record in records]
    except DataError as error:
        _say(f"  MISSING: {error}")
        return False
    for record, prompt in zip(records[:1], prompts[:1], strict=True):
        _say(
            f"  first question ({shown(record.id)}):",
            *(f"    | {shown(part, LONGEST)}" for part in prompt.split("\n")),
        )
    return True


def _list(title: str, items: Sequence[Any]) -> None:
    if items:
        more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
        _say(title, *(f"    {shown(str(item), LONGEST)}" for item in [*items[:SHOWN], *more]))


def _say(*lines: str) -> None:
    tell("".join(f"{line}\n" for line in lines))
