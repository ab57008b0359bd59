"""The front door: a checkpoint directory in, a model or an engine out.

from collavo.load_collavo import load_engine
from collavo.options import LLMConfig
engine = load_engine(LLMConfig(BITS=4, DTYPE="fp16"), "/path/to/CoLLaVO", segmenter, device="cuda")
engine.answer([Query(picture, "What is this?")], Generation(num_beams=3, max_new_tokens=128))
"""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import torch

from modeling.quantize import modules_to_keep, quantization_config, weight_bytes
from modeling.segmenters.base import Segmenter

from .adapters import CRAYON_PAIR
from .checkpoint import read_config, read_tensors
from .config import CoLLaVOConfig
from .engine import Engine
from .errors import CheckpointError
from .model import CoLLaVOForConditionalGeneration
from .options import CrayonConfig, LLMConfig
from .processing import CoLLaVOProcessor
from .template import CHAT, IMAGE_TAG, Template
from .trained import apply as apply_training
from .trained import foundation, identity_of, is_trained

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NOT_QUANTISED = ("vision_tower", "output")
"""Modules that stay in the compute type when ``LLM.BITS`` is 4 or 8 (embeddings and norms are no linears)."""


def resolve_attention(choice: str, dtype: torch.dtype, device: torch.device) -> str:
    """Name of the attention backend to use.

    Args:
        choice: ``auto``, or a backend; flash_attention_2 falls back to sdpa, and says so, where it cannot run.
        dtype: the compute type.
        device: where the model will run.
    """
    installed = importlib.util.find_spec("flash_attn") is not None
    usable = installed and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if choice == "auto":
        return "flash_attention_2" if usable else "sdpa"
    if choice == "flash_attention_2" and not usable:
        reason = (
            f"needs a CUDA device and a half precision type, not {device.type} and {dtype}"
            if installed
            else "needs the package flash-attn (bash install --extras flash-attn)"
        )
        logger.warning("LLM.ATTENTION flash_attention_2 %s; sdpa is used instead", reason)
        return "sdpa"
    return choice


def load_model(
    llm: LLMConfig, checkpoint: Path, device: torch.device, *, weight: bool = True, trainable: bool = False
) -> CoLLaVOForConditionalGeneration:
    """Load a model in evaluation mode.

    Args:
        llm: bits, compute type, attention backend.
        checkpoint: directory in our layout or the released one, or what a training left.
        device: where to put it; quantised weights go there shard by shard.
        weight: False for random weights (seed 0) of the checkpoint's sizes.
        trainable: keep the crayon prompt's parameters out of the quantisation.

    Raises:
        CheckpointError: the directory is unreadable, or lacks or misfits a parameter.
    """
    if weight and is_trained(checkpoint):
        model = load_model(llm, foundation(checkpoint), device, trainable=True)
        apply_training(checkpoint, model)
        model.eval()
        return model
    checkpoint = foundation(checkpoint)
    dtype = DTYPES[llm.DTYPE]
    tensors = read_tensors(checkpoint)
    config = read_config(checkpoint, tensors)
    attention = resolve_attention(llm.ATTENTION, dtype, device)
    if not weight:
        torch.manual_seed(0)
        tensors = CoLLaVOForConditionalGeneration(config).state_dict()
    blank = _blank(config)
    _check_parameters(blank, tensors, checkpoint)
    keep = modules_to_keep(blank, NOT_QUANTISED)
    if trainable:
        keep += [name for name, _ in blank.named_modules() if name.startswith("crayon.") or name.endswith(CRAYON_PAIR)]
    model = CoLLaVOForConditionalGeneration.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        attn_implementation=attention,
        quantization_config=quantization_config(llm.BITS, dtype, keep),
        device_map={"": device},
    )
    return model.eval()  # type: ignore[no-any-return]


def _blank(config: CoLLaVOConfig) -> CoLLaVOForConditionalGeneration:
    """The model without storage, for its names and shapes."""
    with torch.device("meta"):
        return CoLLaVOForConditionalGeneration(config)


def _check_parameters(
    blank: CoLLaVOForConditionalGeneration, tensors: dict[str, torch.Tensor], checkpoint: Path
) -> None:
    """Every parameter must be there in its shape: the library would fill gaps with random numbers.

    Raises:
        CheckpointError: naming the first misfits.
    """
    wanted = {key: value.shape for key, value in blank.state_dict().items()}
    missing = [key for key in wanted if key not in tensors]
    surplus = [key for key in tensors if key not in wanted]
    misfits = [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(shape)}"
        for key, shape in wanted.items()
        if key in tensors and tensors[key].shape != shape
    ]
    for name, keys in (("lacks", missing), ("has unknown", surplus), ("misfits:", misfits)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise CheckpointError(f"{checkpoint}: the checkpoint {name} {', '.join(keys[:5])}{more}")


def memory_needed(llm: LLMConfig, checkpoint: Path) -> int:
    """Bytes that the weights will take, counted from the checkpoint's sizes without loading it.

    Raises:
        CheckpointError: the directory is unreadable.
    """
    whole = foundation(checkpoint)
    config = read_config(whole, read_tensors(whole))
    return weight_bytes(_blank(config), llm.BITS, DTYPES[llm.DTYPE], NOT_QUANTISED)


def engine_identity(
    llm: LLMConfig, checkpoint: Path, *, weight: bool, segmenter: str, template: Template, crayon: CrayonConfig
) -> str:
    """Identity of everything that shapes an engine's replies, known before anything is loaded.

    Args:
        llm: bits and compute type count; the attention backend does not.
        checkpoint: its weights, configuration and tokenizer count.
        weight: whether they are loaded.
        segmenter: the segmenter's fingerprint.
        template: the conversation's wrapper.
        crayon: what the model is told of a picture's objects.
    """
    parts = {
        "checkpoint": identity_of(checkpoint),
        "weight": weight,
        "bits": llm.BITS,
        "dtype": llm.DTYPE,
        "segmenter": segmenter,
        "template": template.name,
        "object_list": crayon.OBJECT_LIST,
        "map_scale": crayon.MAP_SCALE,
    }
    return json.dumps(parts, sort_keys=True)


def _check_processor(config: CoLLaVOConfig, processor: CoLLaVOProcessor, directory: Path) -> None:
    """Tokenizer and picture size must be those that the weights were made with.

    Raises:
        CheckpointError: they are not.
    """
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TAG)
    if image_id != config.image_token_id:
        raise CheckpointError(
            f"{directory}: the tokenizer gives {IMAGE_TAG} the id {image_id}, the model expects {config.image_token_id}"
        )
    if (processor.image_size, processor.patch_size) != (config.image_size, config.vision.patch_size):
        raise CheckpointError(
            f"{directory}: the processor makes pictures of {processor.image_size} px in patches of "
            f"{processor.patch_size}, the model expects {config.image_size} in patches of {config.vision.patch_size}"
        )


def load_engine(
    llm: LLMConfig,
    checkpoint: str,
    segmenter: Segmenter,
    device: torch.device | str = "cpu",
    *,
    weight: bool = True,
    template: Template = CHAT,
    crayon: CrayonConfig | None = None,
) -> Engine:
    """Load model and processor, and join them with a segmenter.

    Args:
        llm: bits, compute type, attention backend.
        checkpoint: directory in our layout or the released one.
        segmenter: gives the panoptic maps.
        device: where the model runs.
        weight: False for random weights.
        template: the conversation's wrapper; evaluation uses the chat template.
        crayon: what the model is told of a picture's objects.

    Raises:
        CheckpointError: the checkpoint is unreadable.
    """
    directory = Path(checkpoint)
    crayon = crayon or CrayonConfig()
    identity = engine_identity(
        llm, directory, weight=weight, segmenter=segmenter.fingerprint, template=template, crayon=crayon
    )
    model = load_model(llm, directory, torch.device(device), weight=weight)
    processor = CoLLaVOProcessor.from_pretrained(foundation(directory))
    _check_processor(model.config, processor, directory)
    return Engine(model, processor, segmenter, template, identity, crayon)
