"""The paper's two ablation tables at small scale: trained, evaluated and printed by one command.

    python -m trainer.ablation outputs/ablation --seeds 0 1 2 --at-once 2

Source: CoLLaVO (arXiv 2402.11248), the ablations of the crayon prompt (none; semantic; semantic and numbering) and of
the training (visual instructions alone; both kinds in one adapter; Dual QLoRA). Every row starts from the same tiny
language model and is trained and evaluated through ``lbk_entry.py``. Rows stop by updates, never by the clock; rows of
the second table have the same number of updates on visual instructions. What is already there is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.load import REPOSITORY
from pipeline.progress import say
from pipeline.report import aligned, pipe_table

IMAGE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the tables.

    Attributes:
        name: of its folder.
        title: as the tables print it.
        crayon: TRAIN.CRAYON.
        adapters: TRAIN.ADAPTERS.
    """

    name: str
    title: str
    crayon: str = "both"
    adapters: str = "dual"


FULL = Row(name="full", title="semantic and numbering")
NONE = Row(name="none", title="no crayon prompt", crayon="none")
SEMANTIC = Row(name="semantic", title="semantic only", crayon="semantic")
VL_ONLY = Row(name="vl_only", title="VL-CIT alone", adapters="vl_only")
SHARED = Row(name="shared", title="one adapter", adapters="shared")
ROWS = (FULL, NONE, SEMANTIC, VL_ONLY, SHARED)
TABLES: Mapping[str, Sequence[tuple[str, Row]]] = {
    "Crayon prompt": tuple((row.title, row) for row in (NONE, SEMANTIC, FULL)),
    "Training": ((VL_ONLY.title, VL_ONLY), (SHARED.title, SHARED), ("Dual QLoRA", FULL)),
}
COLUMNS: Mapping[str, tuple[str, str]] = {
    "existence": ("tiny_world", "kind/existence"),
    "Class2Binary": ("class2binary", ""),
    "count": ("tiny_world", "kind/count"),
    "Box2Class": ("box2class", ""),
    "number+name": ("tiny_world", "kind/box_numbered"),
    "choice": ("tiny_world", "kind/choice/present"),
    "colour": ("tiny_world", "kind/colour"),
    "relation": ("tiny_world", "kind/relation"),
    "text": ("tiny_world", "kind/text"),
}
"""Title -> benchmark and the group of its accuracy."""

MAPS = {"true": "panoptic_val", "spoiled": "panoptic_spoiled"}
"""Which panoptic maps the model is shown in evaluation -> their file in the tiny world."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        folder: of everything.
        base: checkpoint that every row starts from.
        step1: updates of crayon prompt tuning.
        step2: updates of step 2 with both kinds of data.
        batch: pictures of an update.
    """

    folder: Path
    base: Path
    step1: int
    step2: int
    batch: int

    def train(self, row: Row, seed: int) -> Path:
        """Train a row; returns its checkpoint.

        Raises:
            RuntimeError: a step failed; its output is named.
        """
        started = self.base
        if row.crayon != "none":
            started = self._step(1, f"step1-{row.crayon}-{seed}", started, self.step1, seed, row)
        steps = round(self.step2 * (1 - IMAGE_SHARE)) if row.adapters == "vl_only" else self.step2
        return self._step(2, f"{row.name}-{seed}", started, steps, seed, row)

    def _step(self, number: int, name: str, below: Path, steps: int, seed: int, row: Row) -> Path:
        folder, maps = self.folder / name, self.folder / "lessons" / "coco" / "annotations" / "panoptic_train2017"
        checkpoint = folder / "checkpoints" / f"step-{steps:08d}"
        if not (checkpoint / "state.json").is_file():
            settings = {
                **{"SAVE_DIR": folder, "RESUME_FROM": below, "RESUME": True, "NAME": name},
                **{"DATASETS.ROOT": self.folder / "lessons"},
                **{"SEGMENTER.PATH": f"{maps}.json", "SEGMENTER.IMAGES": maps},
                **{"TRAIN.STEPS": steps, "TRAIN.SEED": seed, "TRAIN.CRAYON": row.crayon},
                **{"TRAIN.BATCH_SIZE_TOTAL": self.batch, "TRAIN.BATCH_SIZE": self.batch},
                **({"TRAIN.ADAPTERS": row.adapters, "TRAIN.IMAGE_SHARE": IMAGE_SHARE} if number == 2 else {}),
            }
            command = ["train", "--conf_files", f"configs/collavo_tiny_step{number}.yaml"]
            run([*command, *overrides(settings)], self.folder / f"{name}.log")
        return checkpoint

    def evaluate(self, checkpoint: Path, name: str, maps: str) -> dict[str, float]:
        """Scores of a checkpoint, title of the column -> percent.

        Raises:
            RuntimeError: the evaluation failed; its output is named.
        """
        folder, world = self.folder / f"{name}-eval-{maps}", self.folder / "world"
        names = list(dict.fromkeys(dataset for dataset, _ in COLUMNS.values()))
        if not all((folder / dataset / "results.json").is_file() for dataset in names):
            settings = {
                **{"SAVE_DIR": folder, "RESUME_FROM": checkpoint, "NAME": name},
                **{"DATASETS.ROOT": world, "DATASETS.TEST": ",".join(names)},
                **{"SEGMENTER.PATH": world / "coco_panoptic" / f"{MAPS[maps]}.json"},
                **{"SEGMENTER.IMAGES": world / "coco_panoptic" / MAPS[maps]},
                **{f"{section}.TEST.NUM_BEAMS": 1 for section in ("CLASS2BINARY", "BOX2CLASS")},
            }
            command = ["eval", "--conf_files", "configs/collavo_tiny.yaml", *overrides(settings)]
            run(command, self.folder / f"{name}-eval-{maps}.log")
        return {title: _score(folder / dataset / "results.json", group) for title, (dataset, group) in COLUMNS.items()}


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return ["--overrides", *(str(word) for pair in settings.items() for word in pair)]


def run(words: Sequence[str], log: Path) -> None:
    """Run ``lbk_entry.py`` on one thread, its output going to a file.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "lbk_entry.py", *words]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}; see {log}")


def _score(file: Path, group: str) -> float:
    """A figure of a result in percent."""
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    value = next(m["value"] for m in metrics if m["group"] == group and m["name"] == "accuracy")
    return 100 * float(value)


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.ablation", description="Both ablation tables, small.")
    parser.add_argument("directory", type=Path, help="gets everything")
    parser.add_argument("--base", type=Path, default=REPOSITORY / "assets" / "tiny" / "base", help="where rows start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="(default: all)")
    parser.add_argument("--step1", type=int, default=150, help="updates of step 1 (default: %(default)s)")
    parser.add_argument("--step2", type=int, default=500, help="updates of step 2 (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="pictures of an update (default: %(default)s)")
    parser.add_argument("--lessons", type=int, default=8000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=200, help="scenes to evaluate on (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=2, help="rows that run at once, a thread each (default: 2)")
    args = parser.parse_args()
    folder = args.directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for place, words in (
        ("lessons", ["--lessons", "--seed", "0", "--scenes", str(args.lessons)]),
        ("world", ["--seed", "1", "--scenes", str(args.scenes)]),
    ):
        command = [sys.executable, "-m", "datasets.tiny_world", str(folder / place), *words]
        if code := subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
            return code
    plan = Plan(folder=folder, base=args.base.resolve(), step1=args.step1, step2=args.step2, batch=args.batch)
    rows = [row for row in ROWS if not args.rows or row.name in args.rows]
    try:
        scores = measure(plan, rows, args.seeds, args.at_once)
    except RuntimeError as error:
        say(f"error: {error}")
        return 1
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    (folder / "tables.md").write_text(tables(scores, args.seeds, markdown=True), encoding="utf-8")
    sys.stdout.write(tables(scores, args.seeds, markdown=False))
    return 0


Scores = dict[str, dict[str, dict[str, list[float]]]]
"""Maps -> row -> column -> one figure for each seed."""


def measure(plan: Plan, rows: Sequence[Row], seeds: Sequence[int], at_once: int) -> Scores:
    """Train and evaluate all rows of all seeds.

    Raises:
        RuntimeError: a command failed.
    """

    def one(task: tuple[int, Row]) -> dict[str, dict[str, float]]:
        seed, row = task
        checkpoint = plan.train(row, seed)
        found = {maps: plan.evaluate(checkpoint, f"{row.name}-{seed}", maps) for maps in MAPS}
        say(f"{row.title}, seed {seed}: {', '.join(f'{k} {v:.1f}' for k, v in found['true'].items())}")
        return found

    found: list[tuple[tuple[int, Row], dict[str, dict[str, float]]]] = []
    with ThreadPoolExecutor(at_once) as pool:
        for wave in ((FULL, SEMANTIC, NONE), (VL_ONLY, SHARED)):  # the second wave starts from step 1 of the full rows
            tasks = [(seed, row) for seed in seeds for row in wave if row in rows]
            found += zip(tasks, pool.map(one, tasks), strict=True)
    scores: Scores = {maps: {row.name: {title: [] for title in COLUMNS} for row in rows} for maps in MAPS}
    for (_, row), by_maps in found:
        for maps, figures in by_maps.items():
            for title, value in figures.items():
                scores[maps][row.name][title].append(value)
    return scores


def tables(scores: Scores, seeds: Sequence[int], *, markdown: bool) -> str:
    """Both tables for all maps: mean and, in brackets, standard deviation over the seeds."""
    blocks = []
    for maps, rows in scores.items():
        for name, table in TABLES.items():
            header = ("", *COLUMNS)
            cells = [(title, *(_cell(rows[row.name][c]) for c in COLUMNS)) for title, row in table if row.name in rows]
            if cells:
                heading = f"{name}, {maps} maps, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
                body = "\n".join(pipe_table(header, cells)) if markdown else aligned([header, *cells])
                blocks.append(f"{'### ' if markdown else ''}{heading}\n\n{body}\n")
    return "\n".join(blocks)


def _cell(values: Sequence[float]) -> str:
    spread = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
