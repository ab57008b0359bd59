"""Settings of the model, as the configuration names them; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.common.field_types import PositiveInt


@dataclass
class LLMConfig:
    """How the model is loaded.

    Attributes:
        BITS: 4 (NF4, double quantisation) or 8 (LLM.int8) through bitsandbytes; 16 or 32 for no quantisation.
        DTYPE: compute type: bf16, fp16 or fp32; 16 bits go with the first two, 32 with the last.
        ATTENTION: auto, eager, sdpa or flash_attention_2 (falls back to sdpa, and says so, where it cannot run).
        CUDA_GRAPHS: replay decoding steps as CUDA graphs, where they can be captured; nothing on a CPU.
    """

    BITS: Literal[4, 8, 16, 32] = 4
    DTYPE: Literal["bf16", "fp16", "fp32"] = "fp16"
    ATTENTION: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    CUDA_GRAPHS: bool = True


@dataclass
class CrayonConfig:
    """What the model is told of an image's objects. What is None is as the checkpoint says, see ``recorded.py``.

    Attributes:
        OBJECT_LIST: tell them in words before the question too, with numbers and boxes, as the released model was
            trained; false leaves the crayon prompt alone to tell them.
        MAP_SCALE: panoptic maps are made so many times finer a side than the image tokens. A token then belongs to the
            largest thing that fills 15 % of it, and boxes are measured on the finer map. 1 is what was released.
        FORCE: ask a checkpoint with other settings than it was trained with, which is an error otherwise.
    """

    OBJECT_LIST: bool | None = None
    MAP_SCALE: PositiveInt | None = None
    FORCE: bool = False

    @property
    def object_list(self) -> bool:
        """``OBJECT_LIST``, or what was released."""
        return True if self.OBJECT_LIST is None else self.OBJECT_LIST

    @property
    def map_scale(self) -> int:
        """``MAP_SCALE``, or what was released."""
        return 1 if self.MAP_SCALE is None else self.MAP_SCALE
