"""The engine of a run: known by its settings and files from the start, loaded when there is something to ask."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from collavo.checkpoint.location import locate
from collavo.checkpoint.settings import ModelSettings, settings_for

from ..runtime.console import LoadingBar, warn
from ..runtime.launch import is_main

if TYPE_CHECKING:
    import torch

    from collavo.checkpoint.examine import Examined
    from collavo.engine import Engine
    from modeling.segmenters.base import Segmenter

    from ..config import EvalConfig


class ConfiguredEngine:
    """The engine that a configuration describes, see `EngineSource`.

    Args:
        config: ``LLM``, ``CRAYON``, ``SEGMENTER``, ``RESUME_FROM`` and ``WEIGHT`` count; what it leaves open is as the
            checkpoint says.
        device: where model and segmenter run.
    """

    def __init__(self, config: EvalConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._settings: ModelSettings | None = None
        self._examined: Examined | None = None
        self._segmenter: Segmenter | None = None
        self._engine: Engine | None = None

    def parts(self) -> Mapping[str, Any]:
        """Identity of checkpoint, compute type, template and segmenter; the checkpoint is examined first.

        Raises:
            CheckpointError: it is unreadable, or its parts do not fit, or the configuration contradicts it.
            SegmenterError: the segmenter cannot be built.
        """
        from collavo.load_collavo import engine_identity

        config, settings = self._config, self.settings()
        checkpoint = self._examine().described.folder
        segmenter = self.segmenter().fingerprint
        identity = engine_identity(config.LLM, checkpoint, weight=config.WEIGHT, segmenter=segmenter, settings=settings)
        return json.loads(identity)  # type: ignore[no-any-return]

    def settings(self) -> ModelSettings:
        """How the checkpoint is asked; what a user should know of it is said once, on the main process.

        Raises:
            CheckpointError: it is unreadable, or the configuration contradicts it.
        """
        if self._settings is None:
            config = self._config
            self._settings = settings_for(locate(config.RESUME_FROM), config.CRAYON, config.SEGMENTER)
            if is_main(os.environ):
                for note in self._settings.notes:
                    warn(note)
        return self._settings

    def _examine(self) -> Examined:
        """Find out, once, whether the checkpoint can be loaded."""
        from collavo.checkpoint.examine import examine

        if self._examined is None:
            self._examined = examine(locate(self._config.RESUME_FROM), self.settings().template)
        return self._examined

    def weights(self) -> str:
        """Size of the weights as they will be loaded; "" once they are."""
        if self._engine is not None:
            return ""
        from collavo.load_collavo import size_in_memory

        llm = self._config.LLM
        size = size_in_memory(llm, self._examine())
        bits = f"large weights in {llm.BITS} bit, " if llm.BITS in (4, 8) else ""
        kind = "" if self._config.WEIGHT else "random weights (WEIGHT False) of the sizes in "
        return (
            f"loading {kind}{self._config.RESUME_FROM}: {bits}{llm.DTYPE}, {in_words(size)} for the weights on each "
            "process, besides caches"
        )

    def engine(self) -> Engine:
        """Load it, once; the main process shows how far the weights are."""
        from collavo.load_collavo import load_engine

        if self._engine is None:
            config, settings, examined = self._config, self.settings(), self._examine()
            segmenter = self.segmenter()
            with LoadingBar(shown=is_main(os.environ)) as bar:
                self._engine = load_engine(
                    config.LLM,
                    config.RESUME_FROM,
                    segmenter,
                    self._device,
                    weight=config.WEIGHT,
                    template=settings.template,
                    crayon=settings.crayon,
                    examined=examined,
                    progress=bar.show,
                )
        return self._engine

    def segmenter(self) -> Segmenter:
        """Build it, once. It needs no checkpoint, but where one is named it is the one that this was trained with."""
        from modeling.segmenters import build_segmenter

        if self._segmenter is None:
            config = self.settings().segmenter if self._config.RESUME_FROM else self._config.SEGMENTER
            self._segmenter = build_segmenter(config, self._device)
        return self._segmenter


def in_words(size: int) -> str:
    """A number of bytes as ``6.54 GB`` or ``0.3 MB``."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
