"""Makes the runs: trains, evaluates, and keeps the figures of each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from collavo.instructions import OBJECT_KINDS
from configs.load import find_file, read_yaml
from datasets.writing import make_folder
from pipeline.runtime.console import say
from pipeline.runtime.files import write_json, write_text

from ..ablation import train_step
from ..scores import CONFIGURATION, answer, draw_world
from .figures import ForgettingFigures, ForgettingRun
from .rows import KINDS, LEFT_OUT, ROWS, ForgettingRow, listed

BENCHMARK = "tiny_world"


@dataclass(frozen=True, kw_only=True)
class ForgettingSettings:
    """What a run depends on, besides row and seed.

    Attributes:
        rank: of all LoRA adapters together; alpha is the rank of each.
        step1: updates of crayon prompt tuning.
        visual: updates of step 2 on visual instructions; about as many are on object-level ones.
        batch: images of an update.
        questions: on an image.
        lessons: scenes to train on.
        scenes: drawn to evaluate on.
        most: questions of a kind that are asked at most.
    """

    rank: int
    step1: int
    visual: int
    batch: int
    questions: int
    lessons: int
    scenes: int
    most: int


@dataclass(frozen=True, kw_only=True)
class ForgettingPlan:
    """Makes the runs.

    Attributes:
        folder: of everything.
        base: checkpoint that every run starts from.
        settings: see `ForgettingSettings`.
    """

    folder: Path
    base: Path
    settings: ForgettingSettings

    def file(self, row: ForgettingRow, seed: int) -> Path:
        """Where a run's figures are kept."""
        return self.folder / "runs" / f"{row.name}-{seed}.json"

    def finished(self, row: ForgettingRow, seed: int) -> ForgettingRun | None:
        """A run whose figures are there; None where they are not, or are no whole file."""
        try:
            run = ForgettingRun(**json.loads(self.file(row, seed).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return run if (run.row, run.seed) == (row.name, seed) else None

    def run(self, row: ForgettingRow, seed: int) -> ForgettingRun:
        """Train and evaluate, unless the figures are there.

        Raises:
            RuntimeError: a command failed.
        """
        if (done := self.finished(row, seed)) is not None:
            return done
        checkpoint = self.train(row, seed)
        evaluated, files = self.folder / f"{row.name}-{seed}-eval", (CONFIGURATION, self._asked_configuration)
        answer(checkpoint, self.folder / "world", "true", evaluated, [BENCHMARK], files)
        run = ForgettingRun(
            row=row.name,
            seed=seed,
            settings=asdict(self.settings),
            updates=row.updates(self.settings.visual, seed),
            ranks=row.ranks(self.settings.rank),
            lora_parameters=lora_parameters(checkpoint, tuple(row.ranks(self.settings.rank))),
            right=right_answers(evaluated / BENCHMARK / "predictions.jsonl", self.asked),
        )
        write_json(self.file(row, seed), asdict(run))
        return run

    def start(self, seed: int) -> Path:
        """Train step 1, which all rows of a seed start from; returns its checkpoint.

        Raises:
            RuntimeError: it failed; its output is named.
        """
        kinds = {"DATA.KINDS": listed(OBJECT_KINDS)}
        return self._step(1, f"step1-{seed}", self.base, self.settings.step1, seed, kinds)

    def train(self, row: ForgettingRow, seed: int) -> Path:
        """Train a row; returns its checkpoint.

        Raises:
            RuntimeError: a step failed; its output is named.
        """
        below, one = self.start(seed), self.settings
        if not row.adapters:
            return below
        steps = sum(row.updates(one.visual, seed).values())
        return self._step(2, f"{row.name}-{seed}", below, steps, seed, row.settings(one.rank))

    def _step(self, number: int, name: str, below: Path, steps: int, seed: int, settings: Mapping[str, object]) -> Path:
        one = self.settings
        common = {
            **{"TRAIN.SEED": seed, "TRAIN.QUESTIONS": one.questions},
            **{"TRAIN.BATCH_SIZE_TOTAL": one.batch, "TRAIN.BATCH_SIZE": one.batch},
        }
        return train_step(number, self.folder / name, below, steps, self.folder / "lessons", {**common, **settings})

    @cached_property
    def asked(self) -> list[dict[str, Any]]:
        """Questions of the kinds of the table, at most so many of each; scenes take turns."""
        lines = (self.folder / "world" / "TinyWorld" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        counts: Counter[str] = Counter()
        found = []
        for question in map(json.loads, lines):
            if question["kind"] in KINDS and counts[question["kind"]] < self.settings.most:
                counts[question["kind"]] += 1
                found.append(question)
        return found

    @property
    def scenes(self) -> dict[str, list[int]]:
        """See `ForgettingFigures.scenes`."""
        return {kind: [_scene(one["image"]) for one in self.asked if one["kind"] == kind] for kind in KINDS}

    def _claim(self) -> None:
        """Make the folder one of these settings, so that no checkpoint of others is taken for one of these."""
        file, ours = self.folder / "settings.json", {"base": str(self.base), **asdict(self.settings)}
        make_folder(self.folder / "runs")
        if not file.is_file():
            write_json(file, ours)
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RuntimeError(f"{file}: {error}; choose another folder") from error
        if theirs != ours:
            raise RuntimeError(f"the runs in {self.folder} have other settings, see {file.name}; choose another folder")

    @property
    def _asked_configuration(self) -> Path:
        return self.folder / "asked.json"

    def prepare(self) -> None:
        """Draw what is trained and evaluated on, and choose the questions.

        Raises:
            RuntimeError: that failed, or the folder holds runs with other settings.
        """
        one = self.settings
        self._claim()
        words = ("--lessons", "--seed", 0, "--scenes", one.lessons, "--without", *LEFT_OUT)
        draw_world(self.folder / "lessons", *words)
        draw_world(self.folder / "world", "--seed", 1, "--scenes", one.scenes)
        asked = self.folder / "asked.jsonl"
        write_text(asked, "".join(json.dumps(question) + "\n" for question in self.asked))
        declared = read_yaml(find_file(CONFIGURATION))["BENCHMARKS"][BENCHMARK]
        declared["data"] = {**declared["data"], "file": str(asked)}
        write_json(self._asked_configuration, {"BENCHMARKS": {BENCHMARK: declared}})


def _scene(image: str) -> int:
    """Number of the scene that an image of the mini shows."""
    return int(image.rpartition("_")[2].partition(".")[0])


def right_answers(predictions: Path, asked: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Kind -> for each of its questions, in their order, 1 where it is answered right and else 0.

    Raises:
        RuntimeError: a question has no answer.
    """
    lines = predictions.read_text(encoding="utf-8").splitlines()
    scores = {one["id"]: one["score"] for one in map(json.loads, lines)}
    if missing := [one["id"] for one in asked if str(one["id"]) not in scores]:
        raise RuntimeError(f"{predictions}: question {missing[0]} has no answer")
    right: dict[str, str] = dict.fromkeys(KINDS, "")
    for one in asked:
        right[one["kind"]] += str(int(scores[str(one["id"])] == 1))
    return right


def lora_parameters(checkpoint: Path, names: Sequence[str]) -> int:
    """How many numbers a checkpoint's LoRA adapters hold."""
    from modeling.weight_files import load

    return sum(
        tensor.numel() for name in names for tensor in load(checkpoint / name / "adapter_model.safetensors").values()
    )


def measure(plan: ForgettingPlan, seeds: Sequence[int], at_once: int) -> ForgettingFigures:
    """Make all runs; those of step 2 wait for step 1 of all seeds.

    Raises:
        RuntimeError: a command failed.
    """

    def one(task: tuple[ForgettingRow, int]) -> ForgettingRun:
        row, seed = task
        run = plan.run(row, seed)
        say(f"{row.title}, seed {seed}: {', '.join(f'{k} {100 * v:.1f}' for k, v in _shares(run).items())}")
        return run

    tasks = [(row, seed) for seed in seeds for row in ROWS]
    unfinished = dict.fromkeys(seed for row, seed in tasks if plan.finished(row, seed) is None)
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(plan.start, unfinished))
        runs = list(pool.map(one, tasks))
    return ForgettingFigures(scenes=plan.scenes, runs=runs)


def _shares(run: ForgettingRun) -> dict[str, float]:
    """Kind -> share of right answers."""
    return {kind: digits.count("1") / len(digits) for kind, digits in run.right.items() if digits}
