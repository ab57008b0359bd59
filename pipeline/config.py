"""The configuration of an evaluation: every key, its type, default and meaning. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from collavo.options import LLMConfig
from configs.load import ConfigError, load
from datasets.declaration import Benchmark
from modeling.segmenters.options import SegmenterConfig

CHOICES = {
    "LLM.BITS": (4, 8, 16, 32),
    "LLM.DTYPE": ("bf16", "fp16", "fp32"),
    "LLM.ATTENTION": ("auto", "eager", "sdpa", "flash_attention_2"),
    "EVAL.ON_CHANGE": ("refuse", "restart", "continue"),
}
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
    ROOT: str | None = None


@dataclass
class RunConfig:
    """How a run goes; none of this changes an answer.

    Attributes:
        STRICT: end at the first unreadable record or picture, instead of counting it.
        ON_CHANGE: where SAVE_DIR holds answers of other settings or weights: refuse, restart (ask anew), continue.
        LIMIT: ask only the first so many records; None for all.
        WORKERS: threads per process that decode pictures ahead.
        TIMEOUT_HOURS: longest time that processes wait for each other at the end.
    """

    STRICT: bool = False
    ON_CHANGE: str = "refuse"
    LIMIT: int | None = None
    WORKERS: int = 2
    TIMEOUT_HOURS: float = 24.0


@dataclass
class BenchmarkTest:
    """Overrides of a benchmark's declaration; None leaves what it says.

    Attributes:
        BATCH_SIZE_TOTAL: questions answered at a time, over all processes.
        NUM_BEAMS: beams of the search; 1 is greedy.
        MAX_NEW_TOKENS: longest reply in tokens.
        PROMPT: template over the record's fields.
    """

    BATCH_SIZE_TOTAL: int = 4
    NUM_BEAMS: int | None = None
    MAX_NEW_TOKENS: int | None = None
    PROMPT: str | None = None


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
        SAVE_DIR: folder of results; each dataset gets a folder below it.
        WEIGHT: load the weights of RESUME_FROM; False for random ones of its sizes.
        RESUME_FROM: checkpoint directory, in the released layout or ours.
        WANDB: log scores to Weights & Biases through Accelerate.
        DATASETS: see `DatasetsConfig`.
        LLM: see `collavo.options.LLMConfig`.
        SEGMENTER: see `modeling.segmenters.options.SegmenterConfig`.
        EVAL: see `RunConfig`.
    """

    NAME: str = "collavo"
    PIPELINE: str = ""
    SAVE_DIR: str = "outputs/eval"
    WEIGHT: bool = True
    RESUME_FROM: str = ""
    WANDB: bool = False
    DATASETS: DatasetsConfig = field(default_factory=DatasetsConfig)
    LLM: LLMConfig = field(default_factory=LLMConfig)
    SEGMENTER: SegmenterConfig = field(default_factory=SegmenterConfig)
    EVAL: RunConfig = field(default_factory=RunConfig)


@dataclass
class EvalConfig(EvalSchema):
    """A resolved configuration.

    Attributes:
        sections: section name -> a benchmark's own settings.
        resolved_yaml: all of it as YAML, to be saved beside results.
    """

    sections: dict[str, BenchmarkSection] = field(default_factory=dict)
    resolved_yaml: str = ""

    def declared(self, benchmark: Benchmark) -> Benchmark:
        """A declaration with this configuration's overrides."""
        test = self.sections[benchmark.section].TEST
        changes: dict[str, Any] = {
            "num_beams": test.NUM_BEAMS,
            "max_new_tokens": test.MAX_NEW_TOKENS,
            "prompt": test.PROMPT,
        }
        return replace(benchmark, **{name: value for name, value in changes.items() if value is not None})


def load_config(conf_files: Sequence[str | Path], overrides: Sequence[str], sections: Iterable[str]) -> EvalConfig:
    """Read an evaluation's configuration.

    Args:
        conf_files: YAML files; later ones win.
        overrides: ``KEY VALUE ...``, over all files.
        sections: of the declared benchmarks.

    Raises:
        ConfigError: an unknown key, a value of another type or outside its choices.
    """
    resolved = load(schema(sections), conf_files, overrides)
    _check(resolved, sections)
    values = {f.name: resolved[f.name] for f in fields(EvalSchema)}
    typed: dict[str, Any] = {
        name: OmegaConf.to_object(v) if isinstance(v, DictConfig) else v for name, v in values.items()
    }
    own: dict[str, Any] = {name: OmegaConf.to_object(resolved[name]) for name in sections}
    return EvalConfig(**typed, sections=own, resolved_yaml=OmegaConf.to_yaml(resolved))


def schema(sections: Iterable[str]) -> DictConfig:
    """Keys and types of a configuration with these benchmark sections."""
    config: DictConfig = OmegaConf.structured(EvalSchema)
    with open_dict(config):
        for name in sections:
            config[name] = OmegaConf.structured(BenchmarkSection)
    return config


def _check(config: DictConfig, sections: Iterable[str]) -> None:
    """Check what types alone do not say.

    Raises:
        ConfigError: naming the key and what it may be.
    """
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(config, key)
        if value not in allowed:
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(str, allowed))}")
    bits, dtype = config.LLM.BITS, config.LLM.DTYPE
    if bits in (16, 32) and BITS_OF_DTYPE[dtype] != bits:
        raise ConfigError(f"LLM.BITS {bits} means no quantisation and does not go with LLM.DTYPE {dtype}")
    least: list[tuple[str, Any, float]] = [
        ("EVAL.LIMIT", config.EVAL.LIMIT, 1),
        ("EVAL.WORKERS", config.EVAL.WORKERS, 1),
    ]
    least.append(("EVAL.TIMEOUT_HOURS", config.EVAL.TIMEOUT_HOURS, 0.01))
    for name in sections:
        test = config[name].TEST
        least += [(f"{name}.TEST.{key}", test[key], 1) for key in ("BATCH_SIZE_TOTAL", "NUM_BEAMS", "MAX_NEW_TOKENS")]
    for key, value, lowest in least:
        if value is not None and value < lowest:
            raise ConfigError(f"{key}: must be at least {lowest:g}, got {value}")
    for key in ("SEGMENTER.THRESHOLD", "SEGMENTER.MASK_THRESHOLD"):
        if not 0 <= OmegaConf.select(config, key) <= 1:
            raise ConfigError(f"{key}: must be between 0 and 1, got {OmegaConf.select(config, key)}")
