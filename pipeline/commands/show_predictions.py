"""``show PREDICTIONS``: records of a finished run with image, map, reply and verdict, without a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.load import ConfigError
from datasets.types import DataError, Record

from ..images import decode_image
from ..results.browse.crayons import KeptMap
from ..results.browse.prediction import Prediction, PredictionFilter, target_words
from ..results.browse.runs import RecordImages, find_record_images, read_runs
from ..runtime.console import tell, warn, write_out
from ..runtime.files import format_of, make_folder, write_image
from .drawing import class_colour
from .show import SIDE, Pixels, ShownQuestion, in_words, sheet


def show_predictions(
    path: Path, wanted: PredictionFilter, out: Path, conf_files: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> int:
    """Show records of a run on the terminal and, where its images are at hand, on a sheet.

    Args:
        path: a predictions file, or a folder that holds one or several.
        wanted: which records of each.
        out: file of the sheet, a PNG.
        conf_files: instead of the configuration next to the predictions.
        overrides: of it, such as another ``DATASETS.ROOT``.
    Returns: the exit code.

    Raises:
        ConfigError: the sheet has no format; or a configuration is wrong.
        DataError: the file is unreadable, or no record is wanted.
    """
    try:
        format_of(out)
    except ValueError as error:
        raise ConfigError(f"--out: {error}") from None
    shown, missing = [], ""
    for run in read_runs(path):
        chosen = wanted.choose(run.predictions)
        sights = find_record_images(run, conf_files, overrides)
        missing = missing or sights.missing
        for prediction in chosen:
            one = _shown(prediction, sights)
            shown.append(one)
            tell(f"{run.title}, record {prediction.id}: {prediction.verdict}\n")
            write_out(in_words(one, sys.stdout.isatty()))
    if missing:
        warn(f"images are not shown: {missing}")
        return 0
    make_folder(out.parent)
    write_image(out, sheet(shown))
    tell(f"images, maps and replies are in {out}\n")
    return 0


def _shown(prediction: Prediction, sights: RecordImages) -> ShownQuestion:
    """A record as a row of the sheet; white where there is no image or no map."""
    target = None if prediction.target is None else target_words(prediction.target)
    kept = sights.map_of(prediction.id)
    return ShownQuestion(
        record=Record(id=prediction.id, image=None, fields={}, target=target),
        asked=prediction.question or prediction.prompt or "",
        image=_image(prediction, sights),
        coloured=_blank() if kept is None else coloured(kept),
        objects="" if kept is None else kept.words,
        reply=f"(none: {prediction.error})" if prediction.text is None else prediction.text,
        verdict=prediction.verdict,
    )


def _image(prediction: Prediction, sights: RecordImages) -> Pixels:
    source = sights.images.get(prediction.id)
    try:
        return _blank() if source is None else decode_image(source, SIDE).pixels
    except DataError:
        return _blank()  # the record's own error says why


def _blank() -> Pixels:
    return np.full((SIDE, SIDE, 3), 255, np.uint8)


def coloured(kept: KeptMap) -> Pixels:
    """A kept map in colours, RGB uint8 (side, side, 3); a class has one colour, black is no object."""
    names = list(dict.fromkeys(name for name, _, _ in kept.objects))
    table = [(0, 0, 0), *(class_colour(names.index(name)) for name, _, _ in kept.objects)]
    found: Pixels = np.array(table, np.uint8)[kept.cells()]
    return found
