"""The report that ``eval`` writes at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.types import DataError, Record

from ...runtime.console import tell, warn
from ..report import PREDICTIONS
from .crayons import read_crayons
from .report_files import FOLDER, page_names, write_report
from .runs import BenchmarkRun, RecordImages, read_runs


def report_run(records: Mapping[Path, Sequence[Record]], save_dir: Path) -> None:
    """Write the pages of a run, and say where they are; a fault costs the report alone, and is said.

    Args:
        records: of each benchmark, by the folder of its results.
        save_dir: of the run.
    """
    try:
        by_dataset: dict[str, Path] = {}
        runs = []
        for folder in records:
            if (folder / PREDICTIONS).is_file():
                (run,) = read_runs(folder)
                by_dataset[run.dataset] = folder
                runs.append([run])
        if not runs:
            return

        def find(run: BenchmarkRun) -> RecordImages:
            images = {r.id: r.image for r in records[by_dataset[run.dataset]] if r.image is not None}
            return RecordImages(images=images, maps=read_crayons(by_dataset[run.dataset]))

        index = write_report(runs, find, save_dir / FOLDER, others=_other_pages(save_dir, set(by_dataset)))
    except (OSError, DataError) as error:
        warn(f"the report could not be written: {error} (`lbk_entry.py report {save_dir}` tries again)")
        return
    tell(f"report:      {index}\n")


def _other_pages(save_dir: Path, datasets: set[str]) -> list[BenchmarkRun]:
    """Benchmarks that earlier runs left in the folder, and that have a page already."""
    found = []
    for file in sorted(save_dir.glob(f"*/{PREDICTIONS}")):
        (run,) = read_runs(file.parent)
        (page,) = page_names([run.dataset])
        if run.dataset not in datasets and (save_dir / FOLDER / page).is_file():
            found.append(run)
    return found
