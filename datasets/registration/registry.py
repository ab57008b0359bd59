"""The readers by the names that declarations use. A new reader is a module here and a line in `READERS`."""

from __future__ import annotations

from ..declaration import Benchmark
from ..options import build_named
from .ai2d import Ai2dReader
from .base import Reader
from .coco_panoptic import CocoPanopticReader
from .gqa import GqaReader
from .hallusionbench import HallusionBenchReader
from .mathvista import MathVistaReader
from .mmbench import MmBenchReader
from .mme import MmeReader
from .mmvet import MmVetReader
from .panoptic_maps import PanopticMapsReader
from .pope import PopeReader
from .qbench import QBenchReader
from .scienceqa import ScienceQaReader
from .seed import SeedReader
from .tables import TableReader
from .textvqa import TextVqaReader

READERS: dict[str, type[Reader]] = {
    "ai2d": Ai2dReader,
    "coco_panoptic": CocoPanopticReader,
    "gqa": GqaReader,
    "hallusionbench": HallusionBenchReader,
    "mathvista": MathVistaReader,
    "mmbench": MmBenchReader,
    "mme": MmeReader,
    "mmvet": MmVetReader,
    "panoptic_maps": PanopticMapsReader,
    "pope": PopeReader,
    "qbench": QBenchReader,
    "scienceqa": ScienceQaReader,
    "seed": SeedReader,
    "tables": TableReader,
    "textvqa": TextVqaReader,
}


def reader_of(benchmark: Benchmark) -> Reader:
    """The reader that a declaration names, with its options.

    Raises:
        DataError: unknown reader or option.
    """
    return build_named(READERS, benchmark.reader, benchmark.data, f"benchmark {benchmark.name}, data")
