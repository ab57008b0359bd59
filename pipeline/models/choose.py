"""From a configuration to what answers: the module of its kind of model. Importing this loads no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..base import EngineSource
    from ..config import EvalConfig

KINDS = {"collavo": "CoLLaVOSource", "hf": "TransformersSource", "endpoint": "EndpointSource"}
"""Class of each kind of model; its module has the kind's name."""


def make_source(config: EvalConfig, device: torch.device) -> EngineSource:
    """What answers as the configuration says."""
    kind = config.MODEL.NAME
    maker: Callable[..., Any] = getattr(import_module(f".{kind}", __package__), KINDS[kind])
    source: EngineSource = maker(config, device)
    return source


def check_model(config: EvalConfig) -> None:
    """Check what can be known of the model before anything is loaded; of any kind but CoLLaVO.

    Raises:
        CheckpointError: it is not there, or no such model can be loaded.
        ConfigError: settings contradict each other.
        DataError: the server's key cannot be used.
    """
    import_module(f".{config.MODEL.NAME}", __package__).check(config, os.environ)
