"""A model of the transformers library as what answers: examined first, loaded from files of this machine alone.

The model's profile (``configs/models``) says how it is prompted and what it generates with; ``hf_engine.py`` asks it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collavo.checkpoint.names import fingerprint
from collavo.errors import CheckpointError, as_checkpoint_error
from configs.common.safe_json import read_json
from configs.common.words import shown

from ..runtime.console import say, warn
from ..runtime.launch import is_main
from .resolve import locate_checkpoint

if TYPE_CHECKING:
    import torch

    from modeling.segmenters.base import Segmenter

    from ..config import EvalConfig
    from .hf_engine import TransformersEngine

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
LOADERS = {
    "image_text_to_text": "AutoModelForImageTextToText",
    "causal_lm": "AutoModelForCausalLM",
    "multimodal_lm": "AutoModelForMultimodalLM",
}
_CODE = (".py", ".jinja")
"""Suffixes of further files of a checkpoint that shape its replies."""


def check(config: EvalConfig, environ: Mapping[str, str]) -> None:
    """Check that a checkpoint is there and may be loaded, without loading torch.

    Raises:
        CheckpointError: it is missing, is one of CoLLaVO, or needs code of its own that is not allowed.
    """
    folder = locate_checkpoint(config.MODEL)
    described = _described(folder)
    if not config.MODEL.REMOTE_CODE and config.profile.profile.loader == "causal_lm" and "auto_map" in described:
        raise CheckpointError(_no_remote_code(folder, described))
    if "crayon" in described or str(described.get("model_type", "")).startswith("collavo"):
        raise CheckpointError(f"MODEL.PATH: {shown(str(folder))} is a checkpoint of CoLLaVO: set MODEL.NAME collavo")


def _described(folder: Path) -> Mapping[str, Any]:
    """A checkpoint's config.json.

    Raises:
        CheckpointError: it is unreadable.
    """
    try:
        found = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"MODEL.PATH: {shown(str(folder))}: its config.json is not readable: {error}") from None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"MODEL.PATH: {shown(str(folder))}: its config.json holds no object")
    return found


def _no_remote_code(folder: Path, described: Mapping[str, Any]) -> str:
    return (
        f"MODEL.PATH: {shown(str(folder))} ({shown(described.get('model_type', 'of no named type'))}) can be loaded "
        "only with Python code that lies in the checkpoint. Look through its .py files; MODEL.REMOTE_CODE True then "
        "runs them"
    )


@contextmanager
def _code_only_if_allowed(folder: Path) -> Iterator[None]:
    """Say it in our words where a checkpoint needs code of its own.

    Raises:
        CheckpointError: it does, and ``MODEL.REMOTE_CODE`` is false.
    """
    try:
        yield
    except CheckpointError as error:
        if "trust_remote_code" in str(error):
            raise CheckpointError(_no_remote_code(folder, _described(folder))) from error
        raise


class TransformersSource:
    """The model that a configuration describes, see `pipeline.base.EngineSource`.

    Args:
        config: ``MODEL``, ``LLM`` and ``WEIGHT`` count.
        device: where the model runs.
    """

    def __init__(self, config: EvalConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._engine: TransformersEngine | None = None
        self._segmenter: Segmenter | None = None
        self._processor: Any = None

    def parts(self) -> Mapping[str, Any]:
        """Identity of checkpoint, compute type, processor, library and profile.

        Raises:
            CheckpointError: the checkpoint is unreadable, or its processor cannot be loaded.
        """
        config = self._config
        check(config, os.environ)
        folder = locate_checkpoint(config.MODEL)
        processor = self._loaded_processor()
        image_processor = getattr(processor, "image_processor", None)
        return {
            "model": "hf",
            "checkpoint": _identity(folder),
            "weight": config.WEIGHT,
            "bits": config.LLM.BITS,
            "dtype": config.LLM.DTYPE,
            "transformers": metadata.version("transformers"),
            "image_processor": type(image_processor).__name__,
            "profile": config.profile.parts(),
        }

    def weights(self) -> str:
        """What is about to be loaded; "" once it is."""
        if self._engine is not None:
            return ""
        config = self._config
        kind = "" if config.WEIGHT else "random weights (WEIGHT False) of the sizes in "
        bits = f"large weights in {config.LLM.BITS} bit, " if config.LLM.BITS in (4, 8) else ""
        return f"loading {kind}{shown(config.MODEL.PATH)}: {bits}{config.LLM.DTYPE}"

    def engine(self) -> TransformersEngine:
        """Load it, once.

        Raises:
            CheckpointError: the library cannot load it.
        """
        from .hf_engine import TransformersEngine

        if self._engine is None:
            processor = self._loaded_processor()
            model = _load_model(self._config, self._device)
            engine = TransformersEngine(model, processor, self._config.profile.profile)
            if is_main(os.environ):
                for note in engine.notes():
                    warn(note)
                say(f"  {engine.described()}")
            self._engine = engine
        return self._engine

    def segmenter(self) -> Segmenter:
        """See `pipeline.base.EngineSource.segmenter`."""
        from .map_cache import cached_segmenter

        if self._segmenter is None:
            self._segmenter = cached_segmenter(self._config.SEGMENTER, self._device)
        return self._segmenter

    def _loaded_processor(self) -> Any:
        if self._processor is None:
            self._processor = load_processor(self._config)
        return self._processor


def _identity(folder: Path) -> str:
    """Digest of a checkpoint: weights and settings, chat template and code."""
    digest = hashlib.sha256(fingerprint(folder).encode())
    for file in sorted(path for path in folder.iterdir() if path.suffix in _CODE and path.is_file()):
        digest.update(f"{file.name}:".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def load_processor(config: EvalConfig) -> Any:
    """The processor of a checkpoint; of one that has none, its tokenizer.

    Raises:
        CheckpointError: the library cannot load it, or lacks torchvision for it.
    """
    from transformers import AutoProcessor, AutoTokenizer

    folder, profile = locate_checkpoint(config.MODEL), config.profile.profile
    kind = AutoTokenizer if profile.loader == "causal_lm" and "{path}" in profile.prompt.image else AutoProcessor
    place = f"MODEL.PATH: {shown(str(folder))}"
    options: dict[str, Any] = {} if profile.image_backend == "auto" else {"backend": profile.image_backend}
    try:
        with _code_only_if_allowed(folder), as_checkpoint_error(f"{place}: its processor cannot be loaded"):
            return kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=config.MODEL.REMOTE_CODE, **options
            )
    except CheckpointError as error:
        if "torchvision" in str(error).lower() and util.find_spec("torchvision") is None:
            raise CheckpointError(
                f"{place}: the processor of {profile.title or 'this family'} needs the "
                "package torchvision, which is not installed: bash install --extras torchvision"
            ) from error
        raise


def _load_model(config: EvalConfig, device: torch.device) -> Any:
    """A checkpoint's model, in evaluation mode on its device.

    Raises:
        CheckpointError: the library cannot load it.
    """
    import torch
    import transformers

    folder, profile, llm = locate_checkpoint(config.MODEL), config.profile.profile, config.LLM
    loader = getattr(transformers, LOADERS[profile.loader])
    remote = config.MODEL.REMOTE_CODE
    options: dict[str, Any] = {"dtype": getattr(torch, DTYPES[llm.DTYPE])}
    if llm.ATTENTION != "auto":
        options["attn_implementation"] = llm.ATTENTION
    with (
        _code_only_if_allowed(folder),
        as_checkpoint_error(f"MODEL.PATH: {shown(str(folder))}: the model cannot be loaded"),
    ):
        if not config.WEIGHT:
            described = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=remote)
            return loader.from_config(described, trust_remote_code=remote, **options).to(device).eval()
        if llm.BITS in (4, 8):
            options["quantization_config"] = _quantised(llm.BITS, options["dtype"])
        if config.MODEL.DEVICE_MAP is not None:
            options["device_map"] = config.MODEL.DEVICE_MAP
        elif llm.BITS in (4, 8):
            options["device_map"] = {"": device}
        model, found = loader.from_pretrained(
            folder, local_files_only=True, trust_remote_code=remote, output_loading_info=True, **options
        )
        _check_whole(folder, found)
        return (model if "device_map" in options else model.to(device)).eval()


def _check_whole(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose model would be partly random, of which the library only warns.

    Args:
        folder: of the checkpoint.
        found: what the library says of loading.

    Raises:
        CheckpointError: weights are missing or of another shape.
    """
    faults = {"missing_keys": "lacks weights of its model", "mismatched_keys": "has weights of other shapes"}
    for kind, words in faults.items():
        if names := sorted(str(name) for name in found.get(kind) or ()):
            raise CheckpointError(
                f"MODEL.PATH: {shown(str(folder))} {words}, which would be random: {len(names)}, the first is "
                f"{shown(names[0])}"
            )


def _quantised(bits: int, dtype: torch.dtype) -> Any:
    """The library's settings of 4 bit (NF4, double quantisation) or 8 bit weights."""
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
