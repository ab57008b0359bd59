"""The engine of a run: known by its settings and files from the start, loaded when there is something to ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from collavo.engine import Engine
    from modeling.segmenters.base import Segmenter

    from .config import EvalConfig


class ConfiguredEngine:
    """The engine that a configuration describes, see `EngineSource`.

    Args:
        config: ``LLM``, ``CRAYON``, ``SEGMENTER``, ``RESUME_FROM`` and ``WEIGHT`` count.
        device: where model and segmenter run.
    """

    def __init__(self, config: EvalConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._segmenter: Segmenter | None = None
        self._engine: Engine | None = None

    def parts(self) -> Mapping[str, Any]:
        """Identity of checkpoint, compute type, template and segmenter.

        Raises:
            CheckpointError: the checkpoint is unreadable.
        """
        from collavo.load_collavo import engine_identity
        from collavo.template import CHAT

        config, segmenter = self._config, self.segmenter().fingerprint
        identity = engine_identity(
            config.LLM,
            Path(config.RESUME_FROM),
            weight=config.WEIGHT,
            segmenter=segmenter,
            template=CHAT,
            crayon=config.CRAYON,
        )
        return json.loads(identity)  # type: ignore[no-any-return]

    def weights(self) -> str:
        """Size of the weights as they will be loaded; "" once they are."""
        if self._engine is not None:
            return ""
        from collavo.load_collavo import memory_needed

        llm = self._config.LLM
        size = memory_needed(llm, Path(self._config.RESUME_FROM))
        bits = f"large weights in {llm.BITS} bit, " if llm.BITS in (4, 8) else ""
        kind = "" if self._config.WEIGHT else "random weights (WEIGHT False) of the sizes in "
        return (
            f"loading {kind}{self._config.RESUME_FROM}: {bits}{llm.DTYPE}, {in_words(size)} for the weights on each "
            "process, besides caches"
        )

    def engine(self) -> Engine:
        """Load it, once."""
        from collavo.load_collavo import load_engine

        if self._engine is None:
            config = self._config
            self._engine = load_engine(
                config.LLM,
                config.RESUME_FROM,
                self.segmenter(),
                self._device,
                weight=config.WEIGHT,
                crayon=config.CRAYON,
            )
        return self._engine

    def segmenter(self) -> Segmenter:
        """Build it, once."""
        from modeling.segmenters import build_segmenter

        if self._segmenter is None:
            self._segmenter = build_segmenter(self._config.SEGMENTER, self._device)
        return self._segmenter


def in_words(size: int) -> str:
    """A number of bytes as ``6.54 GB`` or ``0.3 MB``."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
