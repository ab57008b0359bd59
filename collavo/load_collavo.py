"""The front door: a checkpoint directory in, a model or an engine out.

from collavo.load_collavo import load_engine
from collavo.options import LLMConfig
engine = load_engine(LLMConfig(BITS=4, DTYPE="fp16"), "/path/to/CoLLaVO", segmenter, device="cuda")
engine.answer([Query(image, "What is this?")], Generation(num_beams=3, max_new_tokens=128))
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from modeling.quantize import modules_to_keep, multiplies_int8, quantization_config, weight_bytes
from modeling.segmenters.base import Segmenter

from .budget import MOST_QUESTIONS
from .checkpoint.examine import ExaminedCheckpoint, examine_checkpoint
from .checkpoint.finetuned_checkpoint import apply as apply_training
from .checkpoint.finetuned_checkpoint import identity_of
from .checkpoint.loading import Progress, watched_loading
from .checkpoint.location import locate
from .checkpoint.names import read_tensors
from .checkpoint.settings import ModelSettings, settings_for
from .engine import Engine, Generation
from .errors import CheckpointError
from .images import ImagePreparer
from .memory import count_memory
from .model import CoLLaVOForConditionalGeneration
from .options import CrayonConfig, LLMConfig
from .template import Template
from .trainable_parts import CRAYON_PAIR, part_of

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NOT_QUANTISED = ("vision_tower", "output")
"""Modules that stay in the compute type when ``LLM.BITS`` is 4 or 8 (embeddings and norms are no linears)."""


def resolve_attention(choice: str, dtype: torch.dtype, device: torch.device, *, masked: bool = False) -> str:
    """Name of the attention backend to use.

    Args:
        choice: ``auto``, or a backend; flash_attention_2 falls back to sdpa, and says so, where it cannot run.
        dtype: the compute type.
        device: where the model will run.
        masked: whether tokens are hidden from each other by a mask of their own, which flash attention does not take;
            ``auto`` is sdpa then.
    """
    installed = importlib.util.find_spec("flash_attn") is not None
    usable = installed and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if choice == "auto":
        return "flash_attention_2" if usable and not masked else "sdpa"
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
    llm: LLMConfig,
    checkpoint: Path,
    device: torch.device,
    *,
    weight: bool = True,
    trainable: bool = False,
    progress: Progress | None = None,
) -> CoLLaVOForConditionalGeneration:
    """Load a model in evaluation mode; what is wrong with the checkpoint is said before its weights are read.

    Args:
        llm: bits, compute type, attention backend.
        checkpoint: directory in our layout or the released one, or what a training run left.
        device: where to put it; quantised weights go there tensor by tensor.
        weight: False for random weights (seed 0) of the checkpoint's sizes.
        trainable: keep the crayon prompt's parameters out of the quantisation.
        progress: see `Progress`; None for the library's own bar.

    Raises:
        CheckpointError: the directory is unreadable, lacks or misfits a parameter, or a weight is no number.
    """
    return load_examined(
        llm, examine_checkpoint(checkpoint), device, weight=weight, trainable=trainable, progress=progress
    )


def load_examined(
    llm: LLMConfig,
    examined: ExaminedCheckpoint,
    device: torch.device,
    *,
    weight: bool = True,
    trainable: bool = False,
    base_only: bool = False,
    masked: bool = False,
    seed: int = 0,
    parts: Sequence[str] = (),
    progress: Progress | None = None,
) -> CoLLaVOForConditionalGeneration:
    """Load the model of a checkpoint that `examine_checkpoint` found whole; see `load_model`.

    Args:
        llm: see `load_model`.
        examined: the checkpoint.
        device: see `load_model`.
        weight: see `load_model`.
        trainable: see `load_model`.
        base_only: leave out what a training run left, and load the whole checkpoint below it.
        masked: see `resolve_attention`.
        parts: of the base checkpoint that are to be trained: they are not quantised.
        seed: of a fresh crayon prompt, where the checkpoint has none.
        progress: see `load_model`.

    Raises:
        CheckpointError: a weight is no number, or its bytes were changed; or 8 bits cannot be computed in here.
    """
    if llm.BITS == 8 and not multiplies_int8(device):
        raise CheckpointError(
            "LLM.BITS 8: 8-bit products come out wrong in this process: unset ONEDNN_MAX_CPU_ISA, or take LLM.BITS 4, "
            "16 or 32"
        )
    described, config, dtype = examined.described, examined.config, DTYPES[llm.DTYPE]
    trained = weight and described.state is not None and not base_only
    keep = modules_to_keep(examined.blank, NOT_QUANTISED)
    if trainable or trained:
        keep += [
            name
            for name, _ in examined.blank.named_modules()
            if name.startswith("crayon.") or name.endswith(CRAYON_PAIR)
        ]
    changed = {*parts, *(described.state.parts if weight and described.state is not None else ())}
    keep += [name for name, _ in examined.blank.named_modules() if part_of(f"{name}.") in changed]
    watch: AbstractContextManager[None] = nullcontext()
    if weight:
        tensors = read_tensors(described.base, compared=False)
        watch = watched_loading(described.tensors, tensors, dtype, progress)
        tensors = {**tensors, **fresh_crayon(described.lacking, config.text.initializer_range, seed)}
    else:
        torch.manual_seed(0)
        tensors = CoLLaVOForConditionalGeneration(config).state_dict()
    with watch:
        model = CoLLaVOForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            attn_implementation=resolve_attention(llm.ATTENTION, dtype, device, masked=masked),
            quantization_config=quantization_config(llm.BITS, dtype, keep),
            device_map={"": device},
        )
    if trained:
        apply_training(described.folder, model)
    return model.eval()  # type: ignore[no-any-return]


def fresh_crayon(shapes: Mapping[str, tuple[int, ...]], deviation: float, seed: int) -> dict[str, torch.Tensor]:
    """A crayon prompt as training from scratch begins with it; see `CoLLaVOForConditionalGeneration._init_weights`.

    Args:
        shapes: of its parameters, by name.
        deviation: of the weights of the pairs' first halves.
        seed: from 0.
    Returns: float32; the second half of every pair is zero, so that a fresh crayon prompt changes nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith((".bias", f"{CRAYON_PAIR[1]}.weight")):
            found[name] = torch.zeros(shape)
            continue
        pair = name.endswith(f"{CRAYON_PAIR[0]}.weight")
        spread = deviation if pair else shape[1] ** -0.5 if ".projector." in name else 1.0
        found[name] = spread * torch.randn(shape, generator=generator)
    return found


def size_in_memory(llm: LLMConfig, examined: ExaminedCheckpoint) -> int:
    """Bytes that the weights of a checkpoint will take, counted from its sizes without loading it."""
    return weight_bytes(examined.blank, llm.BITS, DTYPES[llm.DTYPE], NOT_QUANTISED)


def working_memory(llm: LLMConfig, examined: ExaminedCheckpoint, device: str, generation: Generation) -> int:
    """Bytes that 18 questions on an image take next to the weights, counted, see `collavo.memory.count_memory`.

    Args:
        llm: bits and compute type.
        examined: the checkpoint.
        device: ``cuda`` or ``cpu``.
        generation: how to search.
    """
    return count_memory(
        examined.blank, dtype=DTYPES[llm.DTYPE], bits=llm.BITS, kept=NOT_QUANTISED, device=device, generation=generation
    ).total


def engine_identity(llm: LLMConfig, checkpoint: Path, *, weight: bool, segmenter: str, settings: ModelSettings) -> str:
    """Identity of everything that shapes an engine's replies, known before anything is loaded.

    Args:
        llm: bits and compute type count; the attention backend does not.
        checkpoint: its weights, configuration and tokenizer count.
        weight: whether they are loaded.
        segmenter: the segmenter's fingerprint.
        settings: how the checkpoint is asked.
    """
    parts: dict[str, Any] = {
        "checkpoint": identity_of(checkpoint),
        "weight": weight,
        "bits": llm.BITS,
        "dtype": llm.DTYPE,
        "segmenter": segmenter,
        "template": settings.template.name,
        "object_list": settings.crayon.object_list,
        "map_scale": settings.crayon.map_scale,
        "forced": list(settings.forced),
    }
    return json.dumps(parts, sort_keys=True)


def load_engine(
    llm: LLMConfig,
    checkpoint: str,
    segmenter: Segmenter,
    device: torch.device | str = "cpu",
    *,
    weight: bool = True,
    template: Template | None = None,
    crayon: CrayonConfig | None = None,
    examined: ExaminedCheckpoint | None = None,
    progress: Progress | None = None,
    most_questions: int = MOST_QUESTIONS,
    images: ImagePreparer | None = None,
) -> Engine:
    """Load model and processor, and join them with a segmenter.

    Args:
        llm: bits, compute type, attention backend.
        checkpoint: directory in our layout or the released one, or what a training run left.
        segmenter: gives the panoptic maps; `settings_for` says with which one the checkpoint was trained.
        device: where the model runs.
        weight: False for random weights.
        template: the conversation's wrapper; None for the checkpoint's own.
        crayon: what the model is told of an image's objects; what it leaves open is as the checkpoint says.
        examined: the checkpoint, where it has been examined.
        progress: see `Progress`; None for the library's own bar.
        most_questions: in flight at a time, where memory allows so many.
        images: see `Engine`.

    Raises:
        CheckpointError: the checkpoint is unreadable, or ``crayon`` or ``template`` contradict it and are not forced.
    """
    directory = locate(checkpoint)
    settings = settings_for(directory, crayon, template=template)
    examined = examined or examine_checkpoint(directory, settings.template)
    for note in settings.notes:
        logger.info("%s", note)
    identity = engine_identity(llm, directory, weight=weight, segmenter=segmenter.fingerprint, settings=settings)
    model = load_examined(llm, examined, torch.device(device), weight=weight, progress=progress)
    return Engine(
        model,
        examined.processor,
        segmenter,
        settings.template,
        identity,
        settings.crayon,
        most_questions=most_questions,
        graphs=llm.CUDA_GRAPHS,
        images=images,
    )
