"""The pipeline classes by the names that existing scripts use; a benchmark without one runs with `BenchmarkPipeline`.

A class states its benchmark and nothing else, unless that benchmark needs another step than the common ones.
"""

from __future__ import annotations

from configs.common.words import did_you_mean, shown
from datasets.declaration import Benchmark

from .base import BenchmarkPipeline
from .released import CLASSES, COMMON_CLASSES
from .runtime.errors import RunError

PREFIX = "CoLLaVO"


class CoLLaVOGQAPipeline(BenchmarkPipeline):
    """GQA: questions about real scenes, answered in a word or two."""

    benchmark = "gqa"


class CoLLaVOSQAPipeline(BenchmarkPipeline):
    """ScienceQA: school science with an image, multiple choice."""

    benchmark = "scienceqa"


class CoLLaVOTextVQAPipeline(BenchmarkPipeline):
    """TextVQA: reading what is written in the image."""

    benchmark = "textvqa"


class CoLLaVOPOPEPipeline(BenchmarkPipeline):
    """POPE: is there such an object in the image, yes or no."""

    benchmark = "pope"


class CoLLaVOMMEPipeline(BenchmarkPipeline):
    """MME: fourteen tasks of perception and cognition, two yes/no questions per image."""

    benchmark = "mme"


class CoLLaVOMMBenchPipeline(BenchmarkPipeline):
    """MMBench, English and Chinese: multiple choice with the options shifted round."""

    benchmark = "mmbench"


class CoLLaVOSEEDPipeline(BenchmarkPipeline):
    """SEED-Bench, its image part: multiple choice."""

    benchmark = "seed"


class CoLLaVOMMVetPipeline(BenchmarkPipeline):
    """MM-Vet: open questions, graded by a judge."""

    benchmark = "mmvet"


class CoLLaVOQBenchPipeline(BenchmarkPipeline):
    """Q-Bench: low-level perception of image quality, multiple choice."""

    benchmark = "qbench"


class CoLLaVOMathVistaPipeline(BenchmarkPipeline):
    """MathVista: mathematics in images; a judge extracts the answers."""

    benchmark = "mathvista"


class CoLLaVOAI2DPipeline(BenchmarkPipeline):
    """AI2D: science diagrams, multiple choice."""

    benchmark = "ai2d"


class CoLLaVOHallusionPipeline(BenchmarkPipeline):
    """HallusionBench: yes/no questions about images, changed images, and none."""

    benchmark = "hallusionbench"


class CoLLaVOChartQAPipeline(BenchmarkPipeline):
    """ChartQA: questions about charts, numbers within five percent."""

    benchmark = "chartqa"


def pipeline_classes() -> dict[str, type[BenchmarkPipeline]]:
    """All named pipeline classes, by name."""
    found = {
        name: value
        for name, value in globals().items()
        if isinstance(value, type) and issubclass(value, BenchmarkPipeline) and value.benchmark
    }
    return dict(sorted(found.items()))


def select_pipeline(name: str | None, declaration: Benchmark) -> BenchmarkPipeline:
    """Make the pipeline of a benchmark.

    Args:
        name: what ``PIPELINE`` says: a class name, with or without its prefix, or as the release had it; empty to
            follow the declaration.
        declaration: with the configuration's overrides.

    Raises:
        RunError: there is no such class, or it belongs to another benchmark.
    """
    own = declaration.pipeline or BenchmarkPipeline.__name__
    classes: dict[str, type[BenchmarkPipeline]] = {**pipeline_classes(), BenchmarkPipeline.__name__: BenchmarkPipeline}
    wanted = own if not name or name in COMMON_CLASSES else name
    plain = CLASSES.get(wanted.removeprefix(PREFIX), wanted)
    chosen = classes.get(plain) or classes.get(PREFIX + plain)
    if chosen is None:
        where = "PIPELINE" if name else f"benchmark {declaration.name}, pipeline"
        hint = did_you_mean(wanted, [*classes, *CLASSES])
        raise RunError(f"{where}: there is no '{shown(wanted)}'{hint} There are: {', '.join(classes)}")
    if chosen.__name__ != own and chosen.benchmark not in ("", declaration.name):
        raise RunError(
            f"PIPELINE {wanted} runs the benchmark {chosen.benchmark}, but DATASETS.TEST is {declaration.dataset}. "
            f"Leave PIPELINE empty or set it to {own}."
        )
    return chosen(declaration)
