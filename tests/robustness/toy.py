"""A toy benchmark and a toy engine for tests of the loop, in one process or under a launcher.

    python -m tests.robustness.toy DATA SAVE [--batch-size-total N] [--delay SECONDS] ...

The engine's reply is a digest of the image's pixels and the question, so that an answer that was given to another
question, or to another image, is wrong in the predictions file. The toy has its own reader and scorer: what these
tests find does not depend on any benchmark's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from datasets.declaration import Benchmark
from datasets.evaluation import Evaluation
from datasets.evaluation.judges.base import Verdicts
from datasets.types import BadRecord, ImageFile, Metric, Record, Score, Scored, unanswered
from modeling.segmenters.none import NoSegmenter
from pipeline.base import BenchmarkPipeline
from pipeline.config import EvalConfig
from pipeline.run import loading
from pipeline.run.loading import Task
from pipeline.run.plan import Plan, run_plan
from pipeline.runtime import lock
from pipeline.runtime.options import RunConfig
from tests.limits import LIMIT, wait_for

if TYPE_CHECKING:
    from collavo.engine import Generation, Query, Reply

IMAGE_SIZE = 28
DECLARATION = Benchmark(
    name="toy",
    dataset="toy_test",
    section="TOY",
    title="Toy",
    version=1,
    source="made for these tests",
    reader="toy",
    data={},
    prompt="{question}\nAnswer briefly.",
    num_beams=1,
    max_new_tokens=5,
    scorer="exact_match",
)


def make_data(folder: Path, num_images: int = 7, num_records: int = 60, seed: int = 0) -> None:
    """Write images and records; some records ask the same of the same image, and some have no image."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_images):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    with (folder / "toy.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(num_records):
            number_of_image = int(rng.integers(-1, num_images))
            image = None if number_of_image < 0 else f"{number_of_image}.png"
            question = f"Is there a thing of kind {rng.integers(0, 6)}?"
            stream.write(json.dumps({"id": f"r{number}", "image": image, "question": question}) + "\n")


class ToyPipeline(BenchmarkPipeline):
    """Reads ``toy.jsonl``; an answer is right if its first digit is even."""

    benchmark = "toy"
    reads: ClassVar[Path | None] = None
    """Where each process notes that it reads."""

    def load(self, roots: Sequence[Path]) -> tuple[list[Record], list[BadRecord]]:
        """Records, and a `BadRecord` for each line that is none."""
        if self.reads is not None:
            (self.reads / os.environ.get("RANK", "0")).touch()
        records, bad = [], []
        for number, line in enumerate((roots[0] / "toy.jsonl").read_text(encoding="utf-8").splitlines(), start=1):
            try:
                values = json.loads(line)
                image = None if values["image"] is None else ImageFile(roots[0] / values["image"], values["image"])
                records.append(
                    Record(id=values["id"], image=image, fields={"question": values["question"]}, target=None)
                )
            except (ValueError, KeyError) as error:
                bad.append(BadRecord(where=f"toy.jsonl:{number}", reason=repr(error)))
        return records, bad

    def score(self, record: Record, text: str, verdicts: Mapping[str, str] | None = None) -> Score:
        """Extract the first digit; there is none in an empty reply."""
        digit = text[:1]
        return Score(value=float(digit != "" and int(digit, 16) % 2 == 0), extracted=digit)

    def evaluate(self, answers: Iterable[tuple[Record, str | None]], verdicts: Verdicts | None = None) -> Evaluation:
        """The share of even digits."""
        scored = [
            unanswered(record) if text is None else Scored(record=record, text=text, score=self.score(record, text))
            for record, text in answers
        ]
        right = [one.score.value for one in scored if one.score.value is not None]
        value = sum(right) / len(right) if right else None
        return Evaluation(scored=scored, metrics=[Metric(name="even", value=value, num=len(right))])


def expected_text(image: Path | None, question: str) -> str:
    """The toy engine's reply, computed without the loop."""
    pixels = b""
    if image is not None:
        from pipeline.images import decode_image

        pixels = decode_image(ImageFile(image, image.name), IMAGE_SIZE).pixels.tobytes()
    return hashlib.sha256(pixels + question.encode()).hexdigest()[:12]


class ToyEngine:
    """Answers with digests.

    Args:
        delay: seconds per batch.
        poison: a question at which it fails; "" for none.
        stall_after: batches that it answers before it answers no more; None for all.
        stall_until: a file that lets it go on; None for never.
    """

    image_size = IMAGE_SIZE

    def __init__(
        self,
        delay: float = 0.0,
        poison: str = "",
        stall_after: int | None = None,
        stall_until: Path | None = None,
    ) -> None:
        self.delay, self.poison, self.stall_after, self.stall_until = delay, poison, stall_after, stall_until
        self.batches: list[list[str]] = []

    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
        """One reply per query."""
        from collavo.engine import Reply

        self.batches.append([query.question for query in queries])
        if len(self.batches) - 1 == self.stall_after:
            wait_for(lambda: self.stall_until is not None and self.stall_until.exists())
        time.sleep(self.delay)
        replies = []
        for query in queries:
            if self.poison and self.poison in query.question:
                raise ValueError("the toy engine was told to fail here")
            pixels = b"" if query.image is None else query.image.pixels.tobytes()
            text = hashlib.sha256(pixels + query.question.encode()).hexdigest()[:12]
            replies.append(Reply(text=text, prompt=f"<{query.question}>", num_tokens=3, finished=True))
        return replies


class ToySource:
    """Counts how often the engine is loaded."""

    def __init__(self, engine: ToyEngine, **parts: object) -> None:
        self._engine, self._parts, self.loads = engine, {"kind": "toy", **parts}, 0

    def parts(self) -> Mapping[str, Any]:
        """Its identity."""
        return self._parts

    def weights(self) -> str:
        """It has none."""
        return "no weights"

    def engine(self) -> ToyEngine:
        """The engine."""
        self.loads += 1
        return self._engine

    def segmenter(self) -> NoSegmenter:
        """One that finds nothing."""
        return NoSegmenter()


def make_plan(data: Path, save: Path, *, batch_size_total: int = 4, prompt: str = "", **options: Any) -> Plan:
    """A plan with the toy as its one task; ``options`` are those of the section ``EVAL``, and ``wandb``.

    Batches are all alike, of ``batch_size_total`` questions over all processes.
    """
    wandb = options.pop("wandb", False)
    options.setdefault("MAX_BATCH", -(-batch_size_total // int(os.environ.get("WORLD_SIZE", "1"))))  # all alike
    options.setdefault("REPORT", False)
    options.setdefault("TIMEOUT_HOURS", 2 * LIMIT / 3600)  # what waits for it fails the test
    pipeline = ToyPipeline(replace(DECLARATION, prompt=prompt) if prompt else DECLARATION)
    config = EvalConfig(
        NAME="toy", SAVE_DIR=str(save), WANDB=wandb, EVAL=RunConfig(**options), resolved_yaml="NAME: toy\n"
    )
    task = Task(pipeline=pipeline, batch_size_total=batch_size_total, folder=save / "toy_test")
    return Plan(config=config, tasks=[task], roots=[data])


def main() -> int:
    """Command line, for the launcher."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("save", type=Path)
    parser.add_argument("--batch-size-total", type=int, default=4)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--poison", default="")
    parser.add_argument("--stall-after", type=int)
    parser.add_argument("--stall-until", type=Path)
    parser.add_argument("--stall-rank", help="the one process that stalls; all of them if it is not given")
    parser.add_argument("--patience", type=float, default=lock.PATIENCE, help="with another run in the folder")
    parser.add_argument("--own-folder", action="store_true", help="one SAVE folder per process, like node-local disks")
    parser.add_argument("--wandb", action="store_true")
    parser.add_argument("--reads", type=Path, help="folder where each process notes that it reads the records")
    parser.add_argument("--spool-seconds", type=float, default=loading.SPOOL_SECONDS, help="see there")
    given = parser.parse_args()
    loading.SPOOL_SECONDS = given.spool_seconds
    ToyPipeline.reads = given.reads
    lock.PATIENCE = given.patience
    save = given.save / os.environ.get("RANK", "0") if given.own_folder else given.save
    plan = make_plan(given.data, save, batch_size_total=given.batch_size_total, wandb=given.wandb)
    stalls = given.stall_rank in (None, os.environ.get("RANK", "0"))
    engine = ToyEngine(given.delay, given.poison, given.stall_after if stalls else None, given.stall_until)
    return run_plan(plan, lambda _: ToySource(engine))


if __name__ == "__main__":
    sys.exit(main())
