"""The commands of training, for ``lbk_entry.py``. Importing this loads no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from collavo.checkpoint.finetuned_checkpoint import use_base
from collavo.checkpoint.location import take_base
from configs.common.words import quoted
from configs.load import ConfigError
from datasets.types import DataError, ImageSource
from pipeline.commands.cli import FAILED, Command, note, path_argument
from pipeline.commands.keys import explain_keys
from pipeline.commands.validate import SHOWN
from pipeline.config import read_configuration
from pipeline.runtime.console import write_out

from .check import check, check_merge
from .config import TrainConfig, TrainSchema, read_training
from .data.paths import missing

if TYPE_CHECKING:
    from pipeline.catalog import Catalog
    from pipeline.commands.fill_maps import ImageSet

MOST_TOKENS = 1_000_000
"""Of a prompt that ``describe`` counts."""


def _options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("instead of training")
    group.add_argument("--print-config", action="store_true", help="print the resolved configuration as YAML")
    group.add_argument("--check", action="store_true", help="check the configuration and the data's files")


def _train(args: argparse.Namespace) -> int:
    config, catalog = read_training(args.conf_files, args.overrides)
    note(config.notes)
    if args.print_config:
        write_out(config.resolved_yaml)
        return 0
    _take_base(config)
    check(config, catalog)
    if args.check:
        return 0
    from .run import train

    return train(config, catalog)


def _take_base(config: TrainConfig) -> None:
    """See `take_base`; stage segmenter starts from an X-Decoder, which has no base."""
    take_base(config.BASE, config.RESUME_FROM if config.TRAIN.STAGE != "segmenter" else "")


def _images(conf_files: Sequence[str], overrides: Sequence[str]) -> tuple[TrainConfig, Catalog, ImageSet]:
    """The images of ``DATA.CONVERSATIONS``, whose maps SEGMENTER makes; see `Command.images`.

    Raises:
        ConfigError: the stage has no such images.
        DataError: files are missing.
    """
    from pipeline.commands.fill_maps import ImageSet

    config, catalog = read_training(conf_files, overrides)
    if config.TRAIN.STAGE != "cit":
        raise ConfigError(f"maps train: TRAIN.STAGE {config.TRAIN.STAGE} learns from maps that lie next to its images")
    if lacking := missing(config):
        raise DataError("\n".join(lacking))

    def read() -> list[ImageSource]:
        from .data.sources import read_parts  # loads torch

        samples = (sample for parts in read_parts(config) for _, part in parts for sample in part)
        return [sample.image for sample in samples if sample.image is not None]

    return config, catalog, ImageSet(name="train", read=read)


def _validate(args: argparse.Namespace) -> int:
    config, _ = read_training(args.conf_files, args.overrides)
    note(config.notes)
    _take_base(config)
    from .validate import validate_training

    return 0 if validate_training(config, quick=args.quick, most=None if args.all else SHOWN) else FAILED


def _merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=path_argument, help="what a training run left: SAVE_DIR/checkpoints/step-..."
    )
    group = parser.add_argument_group("checkpoints")
    group.add_argument("--out", type=path_argument, required=True, metavar="DIR", help="new directory")
    group.add_argument(
        "--base", type=path_argument, metavar="DIR", help="the checkpoint that it was trained on, if that has moved"
    )
    group = parser.add_argument_group("format")
    group.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the weights (default: %(default)s)"
    )
    group.add_argument("--released", action="store_true", help="write the released layout instead of ours")


def _merge(args: argparse.Namespace) -> int:
    use_base(args.base)
    check_merge(args.checkpoint, args.out)
    from .merge import merge  # loads torch, which no mistake should have to wait for

    merge(args.checkpoint, args.out, dtype=args.dtype, released=args.released)
    return 0


def _describe_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is counted")
    group.add_argument(
        "--device",
        choices=("meta", "cpu"),
        default="meta",
        help="meta stores and computes nothing; cpu runs the passes with random weights (default: %(default)s)",
    )
    group.add_argument(
        "--text-tokens", type=_count, default=64, metavar="N", help="of the prompt (default: %(default)s)"
    )
    group.add_argument(
        "--crayon-vectors",
        type=_count,
        default=8,
        metavar="N",
        help="distinct ones of the image (default: %(default)s)",
    )


def _count(text: str) -> int:
    """A whole number from 1, as `argparse` takes it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_TOKENS:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no whole number from 1 to {MOST_TOKENS}")
    return int(text)


def _describe(args: argparse.Namespace) -> int:
    config, _ = read_training(args.conf_files, args.overrides)
    note(config.notes)
    _take_base(config)
    from .describe import show_description  # loads torch

    return show_description(config, args)


TRAIN = Command(
    name="train",
    help="train the crayon prompt (cpt), Dual QLoRA (cit), or the segmenter",
    options=_options,
    run=_train,
    examples="  lbk_entry.py train --conf_files configs/collavo_step1.yaml --overrides RESUME_FROM /path/to/CoLLaVO\n"
    "  lbk_entry.py train --conf_files configs/collavo_step2.yaml --overrides RESUME_FROM outputs/step-00003696\n",
    images=_images,
    data=_validate,
)
MERGE = Command(
    name="merge",
    help="merge the adapters of a training checkpoint into one whole checkpoint",
    options=_merge_options,
    run=_merge,
    configured=False,
    examples="  lbk_entry.py merge outputs/my_step2/checkpoints/step-00001000 --out outputs/merged\n"
    "  lbk_entry.py merge outputs/my_step2/checkpoints/step-00001000 --out outputs/released --released --dtype fp16\n",
)
DESCRIBE = Command(
    name="describe",
    help="count parameters and FLOPs of the model, part by part, without weights",
    options=_describe_options,
    run=_describe,
    examples="  lbk_entry.py describe --conf_files configs/collavo_step2.yaml\n"
    "  lbk_entry.py describe --conf_files configs/collavo_tiny.yaml --device cpu\n",
)


def _keys_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prefix", nargs="?", default="", help="beginning of a key, e.g. EVAL or LLM.BITS (default: all)"
    )


def _keys(args: argparse.Namespace) -> int:
    config: TrainConfig
    config, catalog = read_configuration(args.conf_files, args.overrides, TrainConfig)
    write_out(explain_keys(TrainSchema, catalog.sections, yaml.safe_load(config.resolved_yaml), args.prefix))
    return 0


KEYS = Command(
    name="keys",
    help="explain configuration keys: type, default, value and meaning",
    options=_keys_options,
    run=_keys,
    examples="  lbk_entry.py keys EVAL\n  lbk_entry.py keys LLM --conf_files configs/collavo_step2.yaml\n",
)
COMMANDS = (TRAIN, MERGE, DESCRIBE, KEYS)
