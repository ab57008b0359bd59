"""transformers' auto classes for checkpoints in our layout: importing this registers CoLLaVO.

import collavo.auto
from transformers import AutoModelForImageTextToText, AutoProcessor
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .config import CoLLaVOConfig
from .model import CoLLaVOForConditionalGeneration
from .processing import CoLLaVOProcessor

_FROM_AUTO = {"_from_auto", "trust_remote_code", "code_revision"}
"""What transformers' auto class passes along of its own."""


class AutoCoLLaVOProcessor(CoLLaVOProcessor):
    """The processor, as transformers' auto class calls it."""

    @classmethod
    def from_pretrained(cls, directory: str | Path, **options: Any) -> CoLLaVOProcessor:
        """Load from a checkpoint directory; see `CoLLaVOProcessor.from_pretrained`.

        Raises:
            TypeError: an option is given that has no meaning here.
        """
        if unknown := sorted({name for name, value in options.items() if value is not None} - _FROM_AUTO):
            raise TypeError(f"CoLLaVO's processor has no option {', '.join(unknown)}")
        return super().from_pretrained(Path(directory))


AutoConfig.register(CoLLaVOConfig.model_type, CoLLaVOConfig, exist_ok=True)
AutoModel.register(CoLLaVOConfig, CoLLaVOForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(CoLLaVOConfig, CoLLaVOForConditionalGeneration, exist_ok=True)
AutoProcessor.register(CoLLaVOConfig, AutoCoLLaVOProcessor, exist_ok=True)
