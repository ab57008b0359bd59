"""The commands of training, for ``lbk_entry.py``. Importing this loads no torch."""

from __future__ import annotations

import argparse
import sys

from pipeline.cli import Command

from .config import read_training


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration as YAML, and end")
    parser.add_argument("--check", action="store_true", help="check the configuration without training, and end")


def _train(args: argparse.Namespace) -> int:
    config, catalog = read_training(args.conf_files, args.overrides)
    if args.print_config:
        sys.stdout.write(config.resolved_yaml)
        return 0
    from .run import check, train

    check(config, catalog)
    return 0 if args.check else train(config, catalog)


TRAIN = Command(name="train", help="train the crayon prompt (cpt) or Dual QLoRA (cit)", options=_options, run=_train)
COMMANDS = (TRAIN,)
