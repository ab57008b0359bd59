"""A model behind a server of the OpenAI chat protocol: vLLM, SGLang, llama.cpp, Ollama, OpenAI, Gemini, DashScope, ...

This file checks the settings and says what a run's identity has of a server; ``endpoint_engine.py`` asks it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from configs.common.words import shown
from configs.load import ConfigError
from datasets.evaluation.judges.base import JudgeError
from datasets.evaluation.judges.connection import key_of

from ..runtime.console import say
from .endpoint_engine import EndpointEngine, server_of
from .options import ImageOptions
from .spending import spending_of

if TYPE_CHECKING:
    import torch

    from modeling.segmenters.base import Segmenter

    from ..config import EvalConfig


def check(config: EvalConfig, environ: Mapping[str, str]) -> None:
    """Check the settings of an endpoint; nothing is sent.

    Raises:
        ConfigError: settings contradict each other.
        JudgeError: there is no key where one is needed, or one that cannot be sent.
    """
    model, generation = config.MODEL, config.profile.profile.generation
    if (generation.num_beams or 1) > 1 or generation.length_penalty is not None:
        raise ConfigError(
            "the chat protocol has no beam search, which this profile asks for; set MODEL.SETTINGS {generation: "
            "{num_beams: 1, length_penalty: None}}"
        )
    priced = model.PRICE_INPUT is not None and model.PRICE_OUTPUT is not None
    if model.MAX_COST is not None and not priced:
        raise ConfigError("MODEL.MAX_COST needs MODEL.PRICE_INPUT and MODEL.PRICE_OUTPUT to count what is spent")
    if not key_of(server_of(model), environ) and model.BASE_URL is None:
        raise JudgeError(
            f"MODEL.NAME endpoint: put a key into the environment variable {model.KEY_VARIABLE}, or set MODEL.BASE_URL "
            "to a server that speaks the OpenAI chat protocol"
        )


def _changed_images(options: ImageOptions) -> str:
    """In which way images are not sent as they are, in words; "" for none."""
    shrunk = [] if options.MAX_SIDE is None else [f"shrunk to at most {options.MAX_SIDE} pixels a side"]
    detail = [] if options.DETAIL is None else [f"sent with detail {options.DETAIL}"]
    return ", ".join([*shrunk, *detail])


class EndpointSource:
    """The server that a configuration names, see `pipeline.base.EngineSource`.

    Args:
        config: ``MODEL`` counts.
        device: of the segmenter, should a benchmark measure one.
    """

    def __init__(self, config: EvalConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._engine: EndpointEngine | None = None
        self._segmenter: Segmenter | None = None
        self._served = ""
        # Read before any process of this session asks something: what they spend is not what was spent before.
        self._spending = spending_of(config, os.environ)

    def parts(self) -> Mapping[str, Any]:
        """Identity: model as asked and as served, address, and what every request says.

        Raises:
            JudgeError: the server cannot be reached, refuses the key or does not know the model.
        """
        model = self._config.MODEL
        if not self._served:
            check(self._config, os.environ)
            self._served = self.engine().probe()
            say(f"server:       {shown(self.engine().name)}, answering as {self._served}")
            if words := _changed_images(model.IMAGE):
                say(f"images:       {words} (MODEL.IMAGE)")
        return {
            "model": "endpoint",
            "path": model.PATH,
            "served": self._served,
            "address": self.engine().place,
            "extra_body": model.EXTRA_BODY,
            "image": {"detail": model.IMAGE.DETAIL, "max_side": model.IMAGE.MAX_SIDE},
            "profile": self._config.profile.parts(),
        }

    def weights(self) -> str:
        """A server has its own."""
        return ""

    def engine(self) -> EndpointEngine:
        """The connection, made once; nothing is sent yet."""
        if self._engine is None:
            config = self._config
            self._engine = EndpointEngine(config.MODEL, config.profile, os.environ, spending=self._spending)
        return self._engine

    def segmenter(self) -> Segmenter:
        """See `pipeline.base.EngineSource.segmenter`."""
        from .map_cache import cached_segmenter

        if self._segmenter is None:
            self._segmenter = cached_segmenter(self._config.SEGMENTER, self._device)
        return self._segmenter
