"""The scorers by the names that declarations use. A new scorer is a module here and a line in `SCORERS`."""

from __future__ import annotations

from ..declaration import Benchmark
from ..options import build_named
from .base import Scorer
from .choice import ChoiceScorer
from .circular import CircularScorer
from .exact_match import ExactMatchScorer
from .gqa import GqaScorer
from .graded import GradedScorer
from .grounding import GroundingScorer
from .hallusion import HallusionScorer
from .mathvista import MathVistaScorer
from .mme import MmeScorer
from .panoptic_quality import PanopticQualityScorer
from .per_class import PerClassScorer
from .qbench import QBenchScorer
from .relaxed import RelaxedScorer
from .scienceqa import ScienceQaScorer
from .vqa_accuracy import VqaAccuracyScorer
from .yes_no import YesNoScorer

SCORERS: dict[str, type[Scorer]] = {
    "choice": ChoiceScorer,
    "circular": CircularScorer,
    "exact_match": ExactMatchScorer,
    "gqa": GqaScorer,
    "graded": GradedScorer,
    "grounding": GroundingScorer,
    "hallusion": HallusionScorer,
    "mathvista": MathVistaScorer,
    "mme": MmeScorer,
    "panoptic_quality": PanopticQualityScorer,
    "per_class": PerClassScorer,
    "qbench": QBenchScorer,
    "relaxed": RelaxedScorer,
    "scienceqa": ScienceQaScorer,
    "vqa_accuracy": VqaAccuracyScorer,
    "yes_no": YesNoScorer,
}


def scorer_of(benchmark: Benchmark) -> Scorer:
    """The scorer that a declaration names, with its options.

    Raises:
        DataError: unknown scorer or option.
    """
    return build_named(SCORERS, benchmark.scorer, benchmark.scoring, f"benchmark {benchmark.name}, scorer")
