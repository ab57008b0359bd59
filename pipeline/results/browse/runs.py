"""Finished runs on disk: the benchmarks in a folder, with their predictions, results, images and maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.common.safe_json import read_json
from configs.common.words import shown
from configs.load import ConfigError
from datasets.roots import data_roots
from datasets.types import DataError, ImageSource

from ...benchmarks import select_pipeline
from ...config import EvalConfig, read_configuration
from ...runtime.errors import RunError
from ..predictions_file import prediction_files
from ..report import RESULTS
from .crayons import KeptMap, read_crayons
from .prediction import Prediction, read_prediction_file

SETTINGS = "config.yaml"
"""The resolved configuration that a run leaves next to its results."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """One benchmark of a finished run.

    Attributes:
        folder: that holds its predictions file.
        dataset: what ``DATASETS.TEST`` calls it; the folder's name where no results say.
        name: of the run, for readers.
        predictions: in data order.
        results: see `results.summary`; empty where the folder holds none.
    """

    folder: Path
    dataset: str
    name: str
    predictions: Sequence[Prediction]
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The benchmark's name in tables."""
        title = self.results.get("title")
        return title if isinstance(title, str) and title else self.dataset


def read_runs(path: Path, dataset: str | None = None, name: str = "") -> list[BenchmarkRun]:
    """Read the benchmarks that a path holds.

    Args:
        path: a predictions file, the folder of one benchmark's results, or a run's whole ``SAVE_DIR``.
        dataset: the only benchmark that is meant; None for all.
        name: of the run, for readers; "" for that of the folder.

    Raises:
        DataError: there is no such file, or it is no predictions file of a run.
    """
    files = prediction_files(path, dataset)
    whole = path.is_dir() and not (path / files[0].name).is_file()
    called = name or run_name(path if whole else files[0].parent.parent)
    return [_read(file, called) for file in files]


def run_name(folder: Path) -> str:
    """The name of a run by its folder."""
    return folder.resolve().name or str(folder)


def _read(file: Path, name: str) -> BenchmarkRun:
    results = read_results(file.parent)
    dataset = results.get("dataset")
    return BenchmarkRun(
        folder=file.parent,
        dataset=dataset if isinstance(dataset, str) and dataset else file.parent.name,
        name=name,
        predictions=read_prediction_file(file),
        results=results,
    )


def read_results(folder: Path) -> Mapping[str, Any]:
    """The ``results.json`` of a folder; empty where there is none.

    Raises:
        DataError: it is not one that a run wrote.
    """
    file = folder / RESULTS
    if not os.path.lexists(file):
        return {}
    try:
        content: Any = read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, Mapping) or not isinstance(content.get("metrics"), list) or "counts" not in content:
        raise DataError(f"{file}: not the results of a run; remove it, or run `score` on the predictions next to it")
    return content


@dataclass(frozen=True, kw_only=True)
class RecordImages:
    """What there is to see of a benchmark's records.

    Attributes:
        images: by record id.
        maps: by image name.
        missing: why there are no images; "" where there are.
    """

    images: Mapping[str, ImageSource] = field(default_factory=dict)
    maps: Mapping[str, KeptMap] = field(default_factory=dict)
    missing: str = ""

    def map_of(self, record: str) -> KeptMap | None:
        """The map of a record's image, where one was kept."""
        source = self.images.get(record)
        return None if source is None else self.maps.get(source.name)


def find_record_images(
    run: BenchmarkRun, conf_files: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> RecordImages:
    """Find a run's images, by reading its benchmark's files again, and its maps.

    Args:
        run: whose ``config.yaml`` says where they are.
        conf_files: read instead of that.
        overrides: of the configuration, such as another ``DATASETS.ROOT``.
    Returns: without images where the benchmark's files are not at hand; it says why.

    Raises:
        ConfigError: a configuration that the user named is wrong.
    """
    beside = [file for file in (f / SETTINGS for f in (run.folder, *list(run.folder.parents)[:3])) if file.is_file()]
    config: EvalConfig
    try:
        config, catalog = read_configuration(list(conf_files) or beside[:1], overrides)
        benchmark = catalog.select(run.dataset)[0]
        pipeline = select_pipeline("", config.declared(benchmark))
        records, _ = pipeline.load(data_roots(config.DATASETS.ROOT, os.environ))
    except (ConfigError, DataError, RunError) as error:
        if isinstance(error, ConfigError) and (conf_files or overrides):
            raise
        return RecordImages(missing=shown(str(error), 400))
    images = {record.id: record.image for record in records if record.image is not None}
    return RecordImages(images=images, maps=read_crayons(run.folder))
