"""The paper's two ablation tables at small scale: trained, evaluated and printed by one command.

    python -m assets.tiny.train.ablation outputs/ablation --seeds 0 1 2 --at-once 2

Source: CoLLaVO (arXiv 2402.11248), the ablations of the crayon prompt (none; semantic; semantic and numbering) and of
the training (visual instructions alone; both kinds in one adapter; Dual QLoRA). Every row starts from the same tiny
language model, and is trained (on ground-truth maps) and evaluated through ``lbk_entry.py``. Rows stop by updates,
never by the clock; rows of the second table have the same number of updates on visual instructions. What is already
there is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.results.report import aligned, pipe_table
from pipeline.runtime.console import say
from trainer.checkpoint_folders import folder_of

from .scores import COLUMNS, MAPS, SHIPPED, draw_world, evaluate, overrides, run

IMAGE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class AblationRow:
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


FULL = AblationRow(name="full", title="semantic and numbering")
NONE = AblationRow(name="none", title="no crayon prompt", crayon="none")
SEMANTIC = AblationRow(name="semantic", title="semantic only", crayon="semantic")
VL_ONLY = AblationRow(name="vl_only", title="VL-CIT alone", adapters="vl_only")
SHARED = AblationRow(name="shared", title="one adapter", adapters="shared")
ROWS = (FULL, NONE, SEMANTIC, VL_ONLY, SHARED)
TABLES: Mapping[str, Sequence[tuple[str, AblationRow]]] = {
    "Crayon prompt": tuple((row.title, row) for row in (NONE, SEMANTIC, FULL)),
    "Training": ((VL_ONLY.title, VL_ONLY), (SHARED.title, SHARED), ("Dual QLoRA", FULL)),
}


@dataclass(frozen=True, kw_only=True)
class AblationPlan:
    """What is run.

    Attributes:
        folder: of everything.
        base: checkpoint that every row starts from.
        step1: updates of crayon prompt tuning.
        step2: updates of step 2 with both kinds of data.
        batch: images of an update.
    """

    folder: Path
    base: Path
    step1: int
    step2: int
    batch: int

    def train(self, row: AblationRow, seed: int) -> Path:
        """Train a row; returns its checkpoint.

        Raises:
            RuntimeError: a step failed; its output is named.
        """
        started = self.base
        if row.crayon != "none":
            started = self._step(1, f"step1-{row.crayon}-{seed}", started, self.step1, seed, row)
        steps = round(self.step2 * (1 - IMAGE_SHARE)) if row.adapters == "vl_only" else self.step2
        return self._step(2, f"{row.name}-{seed}", started, steps, seed, row)

    def _step(self, number: int, name: str, below: Path, steps: int, seed: int, row: AblationRow) -> Path:
        folder, maps = self.folder / name, self.folder / "lessons" / "coco" / "annotations" / "panoptic_train2017"
        checkpoint = folder_of(folder, steps)
        if not (checkpoint / "state.json").is_file():
            settings = {
                **{"SAVE_DIR": folder, "RESUME_FROM": below, "RESUME": True, "NAME": name},
                **{"DATASETS.ROOT": self.folder / "lessons"},
                **{"SEGMENTER.NAME": "precomputed", "SEGMENTER.PATH": f"{maps}.json", "SEGMENTER.IMAGES": maps},
                **{"TRAIN.STEPS": steps, "TRAIN.SEED": seed, "TRAIN.CRAYON": row.crayon},
                **{"TRAIN.BATCH_SIZE_TOTAL": self.batch, "TRAIN.BATCH_SIZE": self.batch},
                **({"TRAIN.ADAPTERS": row.adapters, "TRAIN.IMAGE_SHARE": IMAGE_SHARE} if number == 2 else {}),
            }
            command = ["train", "--conf_files", f"configs/collavo_tiny_step{number}.yaml"]
            run([*command, *overrides(settings)], self.folder / f"{name}.log")
        return checkpoint

    def evaluate(self, checkpoint: Path, name: str, maps: str) -> dict[str, float]:
        """See `assets.tiny.train.scores.evaluate`."""
        return evaluate(checkpoint, self.folder / "world", maps, self.folder / f"{name}-eval-{maps}")


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m assets.tiny.train.ablation", description="Both ablation tables, small."
    )
    parser.add_argument("directory", type=Path, help="gets everything")
    parser.add_argument("--base", type=Path, default=SHIPPED / "base", help="where rows start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="(default: all)")
    parser.add_argument("--step1", type=int, default=100, help="updates of step 1 (default: %(default)s)")
    parser.add_argument("--step2", type=int, default=250, help="updates of step 2 (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images of an update (default: %(default)s)")
    parser.add_argument("--lessons", type=int, default=8000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=150, help="scenes to evaluate on (default: %(default)s)")
    parser.add_argument(
        "--maps", nargs="+", choices=MAPS, default=["true", "predicted"], help="(default: true predicted)"
    )
    parser.add_argument("--at-once", type=int, default=2, help="rows that run at once, a thread each (default: 2)")
    args = parser.parse_args()
    folder = args.directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    plan = AblationPlan(folder=folder, base=args.base.resolve(), step1=args.step1, step2=args.step2, batch=args.batch)
    rows = [row for row in ROWS if not args.rows or row.name in args.rows]
    try:
        draw_world(folder / "lessons", "--lessons", "--seed", 0, "--scenes", args.lessons)
        draw_world(folder / "world", "--seed", 1, "--scenes", args.scenes)
        scores = measure(plan, rows, args.seeds, args.maps, args.at_once)
    except RuntimeError as error:
        say(f"error: {error}")
        return 1
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    (folder / "tables.md").write_text(tables(scores, args.seeds, markdown=True), encoding="utf-8")
    sys.stdout.write(tables(scores, args.seeds, markdown=False))
    return 0


Scores = dict[str, dict[str, dict[str, list[float]]]]
"""Maps -> row -> column -> one figure for each seed."""


def measure(
    plan: AblationPlan, rows: Sequence[AblationRow], seeds: Sequence[int], shown: Sequence[str], at_once: int
) -> Scores:
    """Train and evaluate all rows of all seeds, with every kind of maps.

    Raises:
        RuntimeError: a command failed.
    """

    def one(task: tuple[int, AblationRow]) -> dict[str, dict[str, float]]:
        seed, row = task
        checkpoint = plan.train(row, seed)
        found = {maps: plan.evaluate(checkpoint, f"{row.name}-{seed}", maps) for maps in shown}
        say(f"{row.title}, seed {seed}: {', '.join(f'{k} {v:.1f}' for k, v in found[shown[0]].items())}")
        return found

    found: list[tuple[tuple[int, AblationRow], dict[str, dict[str, float]]]] = []
    with ThreadPoolExecutor(at_once) as pool:
        for wave in ((FULL, SEMANTIC, NONE), (VL_ONLY, SHARED)):  # the second wave starts from step 1 of the full rows
            tasks = [(seed, row) for seed in seeds for row in wave if row in rows]
            found += zip(tasks, pool.map(one, tasks), strict=True)
    scores: Scores = {maps: {row.name: {title: [] for title in COLUMNS} for row in rows} for maps in shown}
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
