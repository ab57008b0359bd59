"""The configuration of an evaluation: every key, its type, default and meaning. Importing this loads no torch."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml

from collavo.options import CrayonConfig, LLMConfig
from configs.common.field_types import PathText, PositiveInt
from configs.common.words import quoted
from configs.keys import Section, build, section_of
from configs.load import ConfigError, as_yaml, load
from datasets.declaration import Benchmark, PromptTemplate
from datasets.evaluation.judges.base import JudgeError
from datasets.evaluation.judges.options import JudgeConfig, check_no_key
from modeling.segmenters.options import SegmenterConfig

from .catalog import SECTION, Catalog, load_catalog, split_files
from .models.options import ModelConfig
from .models.profile import ResolvedProfile
from .models.resolve import resolve_profile
from .released import dead_key, dead_key_notes
from .runtime.options import RunConfig

BITS_OF_DTYPE = {"bf16": 16, "fp16": 16, "fp32": 32}


@dataclass
class DatasetsConfig:
    """What is evaluated, and where datasets lie.

    Attributes:
        TEST: names of datasets, separated by commas; see ``lbk_entry.py list``.
        ROOT: folder that holds them; None for the environment variables DATASET, DATASET2, VLDATASET,
            DETECTRON2_DATASETS, searched in this order.
    """

    TEST: str = ""
    ROOT: PathText | None = None


@dataclass
class BenchmarkTest:
    """Overrides of a benchmark's declaration; None leaves what it says.

    Attributes:
        BATCH_SIZE_TOTAL: questions that a process answers at a time at first, a hint of old scripts; then twice as many
            with every batch, up to EVAL.MAX_BATCH.
        NUM_BEAMS: beams of the search; 1 is greedy.
        MAX_NEW_TOKENS: longest reply in tokens.
        PROMPT: template over the record's fields.
    """

    BATCH_SIZE_TOTAL: PositiveInt = 4
    NUM_BEAMS: PositiveInt | None = None
    MAX_NEW_TOKENS: PositiveInt | None = None
    PROMPT: PromptTemplate | None = None


@dataclass
class BenchmarkSection:
    """A benchmark's own section, e.g. ``POPE``.

    Attributes:
        TEST: overrides for its evaluation.
    """

    TEST: BenchmarkTest = field(default_factory=BenchmarkTest)


@dataclass
class EvalSchema:
    """Keys of every evaluation; each declared benchmark adds its section.

    Attributes:
        NAME: for the tracker.
        PIPELINE: class that runs the benchmark, with or without the prefix CoLLaVO; empty to follow the dataset.
        SAVE_DIR: folder of results; each dataset gets a folder below it. Empty: the default.
        WEIGHT: load the weights of RESUME_FROM; False for random ones of its sizes.
        RESUME_FROM: checkpoint directory, in the released layout or ours; another name for MODEL.PATH.
        BASE: where the checkpoint lies that RESUME_FROM was trained on, if it has moved since; empty: where it says.
        WANDB: log scores to Weights & Biases through Accelerate.
        DATASETS: see `DatasetsConfig`.
        MODEL: see `pipeline.models.options.ModelConfig`.
        LLM: see `collavo.options.LLMConfig`.
        CRAYON: see `collavo.options.CrayonConfig`.
        SEGMENTER: see `modeling.segmenters.options.SegmenterConfig`.
        EVAL: see `pipeline.runtime.options.RunConfig`.
        SCORING: official: by the rules of the benchmarks' authors; released: as the first CoLLaVO release scored, where
            that differs, to compare with the paper's table.
        JUDGE: see `datasets.evaluation.judges.options.JudgeConfig`.
    """

    NAME: str = "collavo"
    PIPELINE: str = ""
    SAVE_DIR: PathText = "outputs/eval"
    WEIGHT: bool = True
    RESUME_FROM: PathText = ""
    BASE: PathText = ""
    WANDB: bool = False
    DATASETS: DatasetsConfig = field(default_factory=DatasetsConfig)
    MODEL: ModelConfig = field(default_factory=ModelConfig)
    LLM: LLMConfig = field(default_factory=LLMConfig)
    CRAYON: CrayonConfig = field(default_factory=CrayonConfig)
    SEGMENTER: SegmenterConfig = field(default_factory=SegmenterConfig)
    EVAL: RunConfig = field(default_factory=RunConfig)
    SCORING: Literal["official", "released"] = "official"
    JUDGE: JudgeConfig = field(default_factory=JudgeConfig)


@dataclass
class EvalConfig(EvalSchema):
    """A resolved configuration.

    Attributes:
        SCHEMA: the class of its keys.
        APART: keys that a file may hold for training, which shares its files with evaluation.
        sections: section name -> a benchmark's own settings.
        notes: on what was read and does nothing, or was read otherwise than written; a line each.
        resolved_yaml: all of it as YAML, to be saved next to results.
    """

    SCHEMA: ClassVar[type[EvalSchema]] = EvalSchema
    APART: ClassVar[tuple[str, ...]] = ("DATA", "LORA", "RESUME", "TRAIN", "XDECODER")

    sections: dict[str, BenchmarkSection] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    resolved_yaml: str = ""

    @functools.cached_property
    def profile(self) -> ResolvedProfile:
        """The model's profile with what ``MODEL.SETTINGS`` changes.

        Raises:
            ConfigError: there is none of the name that ``MODEL.PROFILE`` gives, or a setting is wrong.
        """
        return resolve_profile(self.MODEL)

    @property
    def config_hash(self) -> str:
        """Short digest of `resolved_yaml`."""
        return hashlib.sha256(self.resolved_yaml.encode()).hexdigest()[:16]

    def declared(self, benchmark: Benchmark) -> Benchmark:
        """A declaration with what the model's profile says over it, and this configuration's overrides over both."""
        if self.SCORING == "released":
            benchmark = benchmark.as_released()
        benchmark = self.profile.declared(benchmark)
        test = self.sections[benchmark.section].TEST
        changes: dict[str, Any] = {
            "num_beams": test.NUM_BEAMS,
            "max_new_tokens": test.MAX_NEW_TOKENS,
            "prompt": test.PROMPT,
        }
        return replace(benchmark, **{name: value for name, value in changes.items() if value is not None})


C = TypeVar("C", bound=EvalConfig)


def read_configuration(
    conf_files: Sequence[str | Path],
    overrides: Sequence[str],
    kind: type[C] = EvalConfig,  # type: ignore[assignment]  # a default of a generic argument
) -> tuple[C, Catalog]:
    """Read a configuration and the benchmarks that it may name, those that its files declare included.

    Args:
        conf_files: YAML files; later ones win. One that is a declaration of a benchmark adds that benchmark.
        overrides: ``KEY VALUE ...``, over all files.
        kind: `EvalConfig`, or a class made from it with more keys.

    Raises:
        ConfigError: see `load_config` and ``pipeline/catalog.py``.
    """
    declarations, others = split_files(conf_files)
    catalog = load_catalog(added=declarations)
    config = load_config(others, overrides, catalog.sections, kind)
    if catalog.added:
        added = as_yaml({SECTION: {name: dict(v) for name, v in catalog.added.items()}})
        config = replace(config, resolved_yaml=config.resolved_yaml + added)
    _check_secrets(config)
    return config, catalog


def _check_secrets(config: EvalConfig) -> None:
    """Check that the settings, which are printed and saved, hold no key of the judge or of the server that answers.

    Raises:
        ConfigError: one does, and is named.
    """
    settings = yaml.safe_load(config.resolved_yaml)
    try:
        for variable in (config.JUDGE.KEY_VARIABLE, config.MODEL.KEY_VARIABLE):
            check_no_key(settings, variable, os.environ)
    except JudgeError as error:
        raise ConfigError(str(error)) from None


def load_config(
    conf_files: Sequence[str | Path],
    overrides: Sequence[str],
    sections: Iterable[str],
    kind: type[C] = EvalConfig,  # type: ignore[assignment]  # a default of a generic argument
) -> C:
    """Read a configuration.

    Args:
        conf_files: YAML files; later ones win.
        overrides: ``KEY VALUE ...``, over all files.
        sections: of the declared benchmarks.
        kind: `EvalConfig`, or a class made from it with more keys.

    Raises:
        ConfigError: an unknown key, a value of another type or outside its choices.
    """
    sections = tuple(sections)
    loaded = load(
        _keys(kind.SCHEMA, sections),
        conf_files,
        overrides,
        apart={SECTION: "configuration files", **dict.fromkeys(kind.APART, "the command train")},
        forgive=lambda key, beside: dead_key(key, beside, sections),
    )
    values = {key: value for key, value in loaded.values.items() if (key, value) != ("SAVE_DIR", "")}
    general = build(kind.SCHEMA, values)
    own = {name: build(BenchmarkSection, values, f"{name}.") for name in sections}
    notes = (*loaded.notes, *dead_key_notes(loaded.dead))
    config = kind(**{f.name: getattr(general, f.name) for f in fields(general)}, sections=own, notes=notes)
    check_together(config)
    resolved = as_yaml(asdict(general) | {name: asdict(section) for name, section in own.items()})
    path = model_path(config)
    if config.MODEL.NAME == "endpoint":
        return replace(config, resolved_yaml=resolved)
    return replace(config, RESUME_FROM=path, MODEL=replace(config.MODEL, PATH=path), resolved_yaml=resolved)


def model_path(config: EvalSchema) -> str:
    """What ``MODEL.PATH`` or its other name RESUME_FROM says.

    Raises:
        ConfigError: both are set, and differ.
    """
    paths = [path for path in (config.MODEL.PATH, config.RESUME_FROM) if path]
    if len({os.path.normpath(path) for path in paths}) > 1:
        raise ConfigError(
            f"MODEL.PATH is {quoted(config.MODEL.PATH)} and RESUME_FROM {quoted(config.RESUME_FROM)}: they are two "
            "names for one setting; set one of them"
        )
    return paths[0] if paths else ""


def _keys(schema: type[EvalSchema], sections: Iterable[str]) -> Section:
    """Keys and types of a configuration with these benchmark sections."""
    keys = section_of(schema)
    benchmark = section_of(BenchmarkSection)
    for name in sections:
        if name in keys or name == SECTION:
            raise ConfigError(f"a benchmark's section cannot be called {name}, the configuration has a key like that")
        keys[name] = benchmark
    return keys


def check_together(config: EvalConfig) -> None:
    """Check what single keys do not say.

    Raises:
        ConfigError: naming the keys and what would go together.
    """
    bits, dtype = config.LLM.BITS, config.LLM.DTYPE
    if bits in (16, 32) and BITS_OF_DTYPE[dtype] != bits:
        other = "fp32" if bits == 32 else "bf16 or fp16"
        raise ConfigError(
            f"LLM.BITS {bits} means no quantisation and does not go with LLM.DTYPE {dtype}; "
            f"use LLM.BITS {BITS_OF_DTYPE[dtype]}, or LLM.DTYPE {other}"
        )
