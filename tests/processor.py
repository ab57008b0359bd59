"""What the processor, or its settings, must be able to do for some tests."""

import pytest
import torch

from modeling.quantize import multiplies_int8

RIGHT_INT8 = pytest.mark.skipif(
    not multiplies_int8(torch.device("cpu")), reason="8-bit products come out wrong here (ONEDNN_MAX_CPU_ISA is set?)"
)
