"""The model that ``ask`` and ``demo`` talk to: as the configuration says, or the tiny one that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collavo.checkpoint.examine import describe_checkpoint
from collavo.checkpoint.location import locate, take_base
from collavo.checkpoint.settings import settings_for
from configs.load import REPOSITORY, ConfigError
from modeling.segmenters import check_segmenter

from ..config import EvalConfig, read_configuration
from ..runtime.console import say

if TYPE_CHECKING:
    from collavo import CoLLaVO

TINY = REPOSITORY / "configs" / "collavo_tiny.yaml"
_ASSETS = REPOSITORY / "assets" / "tiny"
TINY_PATHS = ("RESUME_FROM", str(_ASSETS / "collavo"), "SEGMENTER.PATH", str(_ASSETS / "segmenter"))
TINY_NOTE = (
    "no RESUME_FROM: this is the tiny CoLLaVO of assets/tiny, which knows drawn scenes alone; "
    "for a real one: --overrides RESUME_FROM /path/to/CoLLaVO"
)


@dataclass(frozen=True, kw_only=True)
class ChosenModel:
    """What will be loaded.

    Attributes:
        config: resolved.
        tiny: whether it is the shipped one, since no checkpoint is named.
    """

    config: EvalConfig
    tiny: bool


def choose_model(conf_files: Sequence[str | Path], overrides: Sequence[str]) -> ChosenModel:
    """Read a configuration and check all that it names, without loading torch.

    Raises:
        ConfigError: it is wrong, or names a model that is no CoLLaVO.
        CheckpointError, SegmenterError: the checkpoint or the segmenter's files are not there or do not fit.
    """
    config: EvalConfig
    config, _ = read_configuration(conf_files, overrides)
    if config.MODEL.NAME != "collavo":
        raise ConfigError(f"MODEL.NAME: only CoLLaVO is talked to; {config.MODEL.NAME} answers benchmarks (eval)")
    tiny = not config.RESUME_FROM
    if tiny:
        config, _ = read_configuration([TINY, *conf_files], [*TINY_PATHS, *overrides])
    take_base(config.BASE, config.RESUME_FROM)
    checkpoint = describe_checkpoint(locate(config.RESUME_FROM)).folder
    check_segmenter(settings_for(checkpoint, config.CRAYON, config.SEGMENTER).segmenter)
    return ChosenModel(config=config, tiny=tiny)


def load_chosen(chosen: ChosenModel) -> CoLLaVO:
    """Load it, and say what is loaded.

    Raises:
        CheckpointError, SegmenterError: it cannot be loaded.
    """
    import torch

    from collavo import CoLLaVO

    from ..models.collavo import CoLLaVOSource
    from ..runtime.libraries import quiet_libraries

    quiet_libraries()
    if chosen.tiny:
        say(TINY_NOTE)
    source = CoLLaVOSource(chosen.config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    say(source.weights())
    return CoLLaVO(source.engine(), source.settings(), describe_checkpoint(locate(chosen.config.RESUME_FROM)))
