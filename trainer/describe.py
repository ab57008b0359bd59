"""``describe``: parameters and FLOPs of the configured model, part by part, without its weights."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

from collavo.checkpoint.finetuned_checkpoint import TrainingState
from collavo.checkpoint.location import locate
from collavo.checkpoint.settings import settings_for
from collavo.describe import (
    PartDescription,
    Workload,
    add_adapters,
    blank_model,
    describe,
    part_of,
    read_sizes,
)
from collavo.load_collavo import DTYPES, NOT_QUANTISED
from collavo.model import CoLLaVOForConditionalGeneration
from configs.common.words import shown
from modeling.blank_segmenter import blank_segmenter
from modeling.cost import Cost, count_parameters, measure
from modeling.quantize import weight_bytes
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from pipeline.models.collavo import in_words
from pipeline.runtime.console import tell

from .config import ADAPTER_NAMES, TrainConfig
from .parallel.trainable import CRAYON, adapter_groups, trainable_parameters, without_adapters

_WIDTHS = (32, 15, 15, 21, 17, 17, 15)
_HEAD = ("part", "parameters", "trained", "prompt: products", "other", "token: products", "other")


def show_description(config: TrainConfig, args: argparse.Namespace) -> int:
    """Print the tables.

    Args:
        config: resolved; ``RESUME_FROM``, ``LLM``, ``SEGMENTER``, ``LORA`` and ``TRAIN`` count.
        args: ``device``, ``text_tokens`` and ``crayon_vectors``.
    Returns: the exit code.

    Raises:
        CheckpointError: the configuration is unreadable, or does not fit weights that lie next to it.
    """
    folder = locate(config.RESUME_FROM) if config.RESUME_FROM else None
    sizes, state = read_sizes(folder)
    model = blank_model(sizes, args.device)
    size = weight_bytes(model, config.LLM.BITS, DTYPES[config.LLM.DTYPE], NOT_QUANTISED)
    named = "CoLLaVO-7B (RESUME_FROM is empty)" if folder is None else shown(str(folder))
    tell(f"{named}: weights take {in_words(size)} with LLM.BITS {config.LLM.BITS}, LLM.DTYPE {config.LLM.DTYPE}\n\n")
    moving = _prepare(model, config, state)
    workload = Workload(text_tokens=args.text_tokens, crayon_vectors=args.crayon_vectors)
    rows = describe(model, workload)
    _table(rows, moving)
    tokens = model.config.num_image_tokens
    tell(
        f"\nprompt: an image of {model.config.image_size} pixels a side ({tokens:,} tokens), {args.text_tokens:,} "
        f"tokens of text,\n{args.crayon_vectors:,} distinct crayon vectors; token: one more, after that prompt. "
        "products: multiply-adds of linears, convolutions\nand attention (masked positions included); other: "
        f"elementwise operations. trained: in stage {config.TRAIN.STAGE}.\n"
    )
    _name_uncounted(cost for row in rows for cost in (row.prompt, row.token))
    segmenter = settings_for(folder, config.CRAYON, config.SEGMENTER).segmenter if folder else config.SEGMENTER
    _describe_segmenter(segmenter, model.config.image_size, args.device)
    return 0


def _prepare(
    model: CoLLaVOForConditionalGeneration, config: TrainConfig, state: TrainingState | None
) -> Mapping[str, int]:
    """Add the adapters that the checkpoint has, or that the stage would train; what is trained, by part."""
    train, lora = config.TRAIN, config.LORA
    if state is not None and state.adapters:
        adapters = add_adapters(model, state.adapters, state.rank, state.alpha, state.ranks, state.targets)
    else:
        names = ADAPTER_NAMES[train.ADAPTERS] if train.STAGE == "cit" else ()
        adapters = add_adapters(model, names, lora.R, lora.ALPHA, lora.RANKS, lora.targets)
    if train.STAGE == "segmenter":
        return {}
    if train.STAGE == "cit":
        moving = trainable_parameters(adapter_groups(model, adapters, train.CRAYON, train.PARTS))
    else:
        moving = trainable_parameters({CRAYON: without_adapters(model, train.CRAYON, train.PARTS)})
    found: dict[str, int] = {}
    for name, parameter in moving.items():
        found[part_of(name)] = found.get(part_of(name), 0) + parameter.numel()
    return found


def _table(rows: Sequence[PartDescription], moving: Mapping[str, int]) -> None:
    _row(_HEAD)
    for row in rows:
        _row((row.name, row.parameters, moving.get(row.name, 0), *_numbers(row.prompt), *_numbers(row.token)))
    prompt, token = (sum((getattr(row, name) for row in rows), Cost()) for name in ("prompt", "token"))
    parameters = sum(row.parameters for row in rows)
    _row(("total", parameters, sum(moving.values()), *_numbers(prompt), *_numbers(token)))


def _row(cells: Sequence[str | int]) -> None:
    texts = [cell if isinstance(cell, str) else f"{cell:,}" for cell in cells]
    name, *numbers = texts
    tell(name.ljust(_WIDTHS[0]) + "".join(text.rjust(width) for text, width in zip(numbers, _WIDTHS[1:], strict=False)))
    tell("\n")


def _numbers(cost: Cost) -> tuple[int, int]:
    return cost.products, cost.elementwise


def _name_uncounted(costs: Iterable[Cost]) -> None:
    """Say which operators no handle knows, or that there are none."""
    found = sum(costs, Cost()).uncounted
    text = ", ".join(f"{name} ({times} times)" for name, times in sorted(found.items()))
    tell(f"operators that are not counted: {text or 'none'}\n")


def _describe_segmenter(config: SegmenterConfig, size: int, device: str) -> None:
    """Print a segmenter's table, or why there is none."""
    name = config.resolved().NAME
    try:
        blank = blank_segmenter(config, size, device)
    except SegmenterError as error:
        tell(f"\nsegmenter {name}: not described: {error}\n")
        return
    if blank is None:
        tell(f"\nsegmenter {name}: has no network\n")
        return
    numbers = count_parameters(blank.network, _segmenter_part)
    costs: Mapping[str, Cost] = {}
    shape = " x ".join(str(side) for side in blank.inputs[0].shape[-2:])
    tell(f"\nsegmenter {name}, an image of {shape} pixels\n")
    try:
        costs = measure(blank.network, blank.inputs, _segmenter_part)
    except (RuntimeError, NotImplementedError) as error:
        hint = "; --device cpu counts them" if device == "meta" else ""
        tell(f"FLOPs are not counted: {str(error).splitlines()[0]}{hint}\n")
    _row(("part", "parameters", *(("products", "other") if costs else ())))
    for part in dict.fromkeys((*numbers, *costs)):
        cost = costs.get(part, Cost())
        if numbers.get(part) or cost != Cost():
            _row((part, numbers.get(part, 0), *(_numbers(cost) if costs else ())))
    total = sum(costs.values(), Cost())
    _row(("total", sum(numbers.values()), *(_numbers(total) if costs else ())))
    if costs:
        _name_uncounted(costs.values())


def _segmenter_part(name: str) -> str:
    """``network.backbone.layers.0`` -> backbone."""
    return name.removeprefix("network").removeprefix(".").split(".")[0] or "joining"
