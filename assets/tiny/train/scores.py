"""What a tiny model scores, by the panoptic maps that it is shown.

    python -m assets.tiny.train.scores outputs/tiny_scores

evaluates the shipped model on scenes of a seed that it never saw: with their ground-truth maps, with corrupted ones,
with X-Decoder's, and without any, and prints the scores side by side. Everything runs through ``lbk_entry.py eval``;
what is already there is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.load import REPOSITORY
from pipeline.results.report import aligned, pipe_table

SHIPPED = REPOSITORY / "assets" / "tiny"
CONFIGURATION = "configs/collavo_tiny.yaml"
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

MAPS = {
    "true": "the scenes' own maps",
    "corrupted": "5 % of the things missing, 5 % misnamed",
    "predicted": "X-Decoder's",
    "none": "no maps",
}
"""Which panoptic maps the model is shown."""


def segmenter(maps: str, world: Path) -> dict[str, Any]:
    """Settings of the segmenter that gives maps of `MAPS` for a tiny world."""
    if maps == "none":
        return {"SEGMENTER.NAME": "none"}
    if maps == "predicted":
        return {}  # the configuration's own
    path = world / "coco_panoptic" / {"true": "panoptic_val", "corrupted": "panoptic_spoiled"}[maps]
    return {"SEGMENTER.NAME": "precomputed", "SEGMENTER.PATH": f"{path}.json", "SEGMENTER.IMAGES": path}


def evaluate(checkpoint: Path, world: Path, maps: str, folder: Path) -> dict[str, float]:
    """Scores of a checkpoint.

    Args:
        checkpoint: of a tiny model.
        world: scenes and questions, of ``assets.tiny.world``.
        maps: one of `MAPS`.
        folder: gets the results, and the output in ``<folder>.log``.
    Returns: title of the column -> percent.

    Raises:
        RuntimeError: the evaluation failed; its output is named.
    """
    answer(checkpoint, world, maps, folder, list(dict.fromkeys(dataset for dataset, _ in COLUMNS.values())))
    return {title: _score(folder / dataset / "results.json", group) for title, (dataset, group) in COLUMNS.items()}


def answer(
    checkpoint: Path,
    world: Path,
    maps: str,
    folder: Path,
    datasets: Sequence[str],
    conf_files: Sequence[str | Path] = (CONFIGURATION,),
) -> None:
    """Let a checkpoint answer benchmarks, unless their results are there.

    Args:
        checkpoint: of a tiny model.
        world: see `evaluate`.
        maps: one of `MAPS`.
        folder: see `evaluate`.
        datasets: names of the benchmarks.
        conf_files: of the evaluation.

    Raises:
        RuntimeError: the evaluation failed; its output is named.
    """
    if not all((folder / dataset / "results.json").is_file() for dataset in datasets):
        settings = {
            **{"SAVE_DIR": folder, "RESUME_FROM": checkpoint, "NAME": folder.name},
            **{"DATASETS.ROOT": world, "DATASETS.TEST": ",".join(datasets), "EVAL.REPORT": False},
            **segmenter(maps, world),
            **{f"{section}.TEST.NUM_BEAMS": 1 for section in ("CLASS2BINARY", "BOX2CLASS")},
        }
        command = ["eval", "--conf_files", *map(str, conf_files), *overrides(settings)]
        run(command, folder.with_name(f"{folder.name}.log"))


def draw_world(directory: Path, *words: object) -> None:
    """Draw scenes and questions by the command that every user has.

    Raises:
        RuntimeError: it failed; its output went to the terminal.
    """
    command = [sys.executable, "-m", "assets.tiny.world", str(directory), *map(str, words)]
    if code := subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
        raise RuntimeError(f"{directory} could not be drawn (exit code {code})")


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
    parser = argparse.ArgumentParser(prog="python -m assets.tiny.train.scores", description="Scores by panoptic maps.")
    parser.add_argument("directory", type=Path, help="gets everything")
    parser.add_argument(
        "--checkpoint", type=Path, default=SHIPPED / "collavo", help="a tiny model (default: the shipped one)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the scenes (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=600, help="how many (default: %(default)s)")
    parser.add_argument("--maps", nargs="+", choices=MAPS, default=list(MAPS), help="(default: all)")
    args = parser.parse_args()
    folder = args.directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        draw_world(folder / "world", "--seed", args.seed, "--scenes", args.scenes)
        for maps in args.maps:
            scores = evaluate(args.checkpoint.resolve(), folder / "world", maps, folder / maps)
            rows.append((f"{maps} ({MAPS[maps]})", *(f"{value:.1f}" for value in scores.values())))
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    header = ("maps", *COLUMNS)
    (folder / "scores.md").write_text("\n".join(pipe_table(header, rows)) + "\n", encoding="utf-8")
    sys.stdout.write(f"{aligned([header, *rows])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
