"""Step 2, crayon instruction tuning with Dual QLoRA: object-level and visual instructions, a LoRA adapter for each.

Source: CoLLaVO (arXiv 2402.11248), section 3.3: Image-CIT learns from crayon instructions, VL-CIT from LLaVA-Instruct
and ShareGPT4V; which one a step is, is drawn. The paper's ablations: one set for both, and VL-CIT alone.
"""

from __future__ import annotations

import torch

from collavo.adapters import IMAGE_CIT, VL_CIT
from collavo.instructions import CRAYON_KINDS, OBJECT_KINDS

from ..config import ADAPTER_NAMES, TrainConfig
from ..data.samples import Preparation
from ..data.sources import Split, StageData, conversations, crayon_instructions, join_sources
from .tuning import TuningJob, load_tuning


def sources(config: TrainConfig, preparation: Preparation, device: torch.device) -> StageData:
    """Object-level instructions (unless the ablation leaves them out) and conversations."""
    found: dict[str, Split] = {VL_CIT: conversations(config, preparation, device)}
    if config.TRAIN.ADAPTERS != "vl_only":
        found[IMAGE_CIT] = crayon_instructions(config, preparation, (*CRAYON_KINDS, *OBJECT_KINDS))
    return join_sources(found)


def load_cit(config: TrainConfig, device: torch.device, *, alike: bool) -> TuningJob:
    """See `trainer.run.load_job`."""
    return load_tuning(config, device, ADAPTER_NAMES[config.TRAIN.ADAPTERS], sources, alike=alike)
