"""What training changes: the crayon prompt's parameters, and the two LoRA adapters of Dual QLoRA.

Source: CoLLaVO (arXiv 2402.11248), section 3.3: the decoder's linears carry two LoRA adapters (r = alpha = 64) on 4-bit
weights; both act in every forward pass, and a step trains only the adapter that its data belongs to.

The frozen set must not move, not even by momentum or weight decay: its parameters need no gradient in that step, so
their gradients are None and AdamW passes them by.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path

from peft import LoraConfig, PeftModel
from torch import Tensor, nn

from modeling.files import FileError
from modeling.stored_tensor import check_range
from modeling.weight_files import load, save

from .checkpoint.names import check_fit
from .errors import CheckpointError
from .model import CoLLaVOForConditionalGeneration
from .trainable_parts import CRAYON_PAIR, IMAGE_CIT, LINEARS, TARGETS, VL_CIT, is_crayon, lora_linear_pattern, part_of

__all__ = ["CRAYON_PAIR", "IMAGE_CIT", "LINEARS", "VL_CIT", "Adapters", "base_parameters", "crayon_parameters", "merge"]


def crayon_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the crayon prompt: queries, their MLP, and the low-rank pairs that bring it into the decoder."""
    return {name: parameter for name, parameter in model.named_parameters() if is_crayon(name)}


def base_parameters(model: nn.Module, parts: Sequence[str]) -> dict[str, nn.Parameter]:
    """Parameters of parts of the base checkpoint; see `trainable_parts.PARTS`."""
    return {name: parameter for name, parameter in model.named_parameters() if part_of(name) in parts}


class Adapters:
    """The LoRA adapters on a model's decoder.

    Args:
        model: gets the adapters in place; its forward pass then includes all of them.
        names: of the adapters; none for a stage without.
        rank: of every pair.
        alpha: scale times rank.
        dropout: before the A matrices, in training.
        ranks: of adapters that have another one.
        targets: the decoder's linears that carry them.
    """

    def __init__(
        self,
        model: CoLLaVOForConditionalGeneration,
        names: Sequence[str],
        *,
        rank: int = 64,
        alpha: int = 64,
        dropout: float = 0.0,
        ranks: Mapping[str, int] | None = None,
        targets: Sequence[str] = TARGETS,
    ) -> None:
        self.names = tuple(names)
        self._peft: PeftModel | None = None
        for name in names:
            self._add(
                model,
                name,
                LoraConfig(
                    r=(ranks or {}).get(name, rank),
                    lora_alpha=alpha,
                    lora_dropout=dropout,
                    target_modules=lora_linear_pattern(targets),
                    bias="none",
                ),
            )
        self._activate()

    def _add(self, model: CoLLaVOForConditionalGeneration, name: str, settings: LoraConfig) -> None:
        with warnings.catch_warnings():  # PEFT reads an attribute that transformers is about to rename
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            if self._peft is None:
                self._peft = PeftModel(model, settings, adapter_name=name)
            else:
                self._peft.add_adapter(name, settings)

    def _activate(self) -> None:
        """Let all sets act."""
        if self._peft is not None:
            self._peft.base_model.set_adapter(list(self.names))  # type: ignore[operator]

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters of one set, by their names in the model."""
        return dict(self._named(name))

    def _named(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        if self._peft is not None:
            for key, parameter in self._peft.get_base_model().named_parameters():
                if f".lora_A.{name}." in key or f".lora_B.{name}." in key:
                    yield key, parameter

    def merge(self) -> None:
        """Add all adapters to the base weights, and take them off."""
        if self._peft is not None:
            self._peft.merge_and_unload(adapter_names=list(self.names))
            self._peft, self.names = None, ()

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write one PEFT folder per adapter: ``adapter_config.json`` and ``adapter_model.safetensors``.

        PEFT's own `save_pretrained` would write the model's parameters as they lie there, which may be shards.

        Args:
            folder: gets a folder named after each adapter.
            weights: the adapters' parameters, by their names in the model, whole.
        """
        if self._peft is None:
            return
        for name in self.names:
            settings = copy(self._peft.peft_config[name])
            settings.inference_mode = True  # as PEFT writes it: what loads the adapter does not train it unasked
            settings.save_pretrained(str(folder / name))
            named = {_peft_key(key, name): weights[key].contiguous().cpu() for key, _ in self._named(name)}
            save(named, folder / name / "adapter_model.safetensors", {"format": "pt"})

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CheckpointError: an adapter is missing, or misfits the model.
        """
        for name in self.names:
            file = folder / name / "adapter_model.safetensors"
            try:
                tensors = load(file)
            except FileError as error:
                raise CheckpointError(f"{error} (LoRA adapter {name})") from error
            self._fill(name, tensors, file)

    def _fill(self, name: str, tensors: dict[str, Tensor], file: Path) -> None:
        wanted = {_peft_key(key, name): parameter for key, parameter in self._named(name)}
        check_fit(file, tensors, {key: tuple(parameter.shape) for key, parameter in wanted.items()})
        try:
            check_range(tensors, file)
        except FileError as error:
            raise CheckpointError(str(error)) from error
        for key, parameter in wanted.items():
            parameter.data.copy_(tensors[key])


def _peft_key(key: str, name: str) -> str:
    """The name under which PEFT saves a parameter of the model."""
    return f"base_model.model.{key.replace(f'.{name}.weight', '.weight')}"


def merge(model: CoLLaVOForConditionalGeneration, adapters: Adapters) -> None:
    """Add all adapters to the base weights, and take them off.

    Args:
        model: that carries them; not quantised.
        adapters: the LoRA adapters on it.

    Raises:
        ValueError: the base weights are quantised, so that the sum could not be kept exactly.
    """
    quantised = [name for name, p in model.named_parameters() if not p.is_floating_point()]
    if quantised:
        raise ValueError(
            f"adapters cannot be merged into quantised weights ({quantised[0]}): load with LLM.BITS 16 or 32"
        )
    adapters.merge()
