"""The command line: what each command reads, checks and prints. Importing this loads no torch."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from collavo.examine import describe_checkpoint
from collavo.place import locate
from collavo.settings import settings_for
from configs.load import ConfigError
from datasets.roots import data_roots
from datasets.types import DataError

from .benchmarks import PREFIX, select_pipeline
from .catalog import Catalog, load_catalog
from .config import EvalConfig, read_configuration
from .launch import is_main, let_main_speak
from .rescore import Source, rescore
from .run import asks_model, evaluate, make_plan
from .session import USER_ERRORS
from .validate import validate

EXAMPLES = """\
examples:
  lbk_entry.py list
  lbk_entry.py validate pope_test --overrides DATASETS.ROOT /path/to/dataset
  lbk_entry.py segment dog.jpg --out outputs/dog --overrides SEGMENTER.NAME xdecoder SEGMENTER.PATH /path/to/X-Decoder
  lbk_entry.py score --predictions outputs/collavo_step2/mm-vet/predictions.jsonl
  accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py eval \\
      --conf_files configs/collavo_step2.yaml \\
      --overrides DATASETS.TEST pope_test POPE.TEST.BATCH_SIZE_TOTAL 20 WEIGHT True RESUME_FROM /path/to/CoLLaVO

Keys, types and defaults of --overrides: lbk_entry.py eval --print-config
"""
USAGE, FAILED = 2, 1


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest command and reach the terminal once, not once a process."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message}\nTry: {self.prog} --help")
        raise SystemExit(USAGE)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that another package adds to those here.

    Attributes:
        name: on the command line.
        help: one line.
        options: adds its own options to a parser.
        configured: whether it takes ``--conf_files`` and ``--overrides``.
        run: from its arguments to the exit code.
    """

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    configured: bool = True


def main(arguments: Sequence[str], more: Sequence[Command] = ()) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name.
        more: commands besides those here.
    Returns: the exit code: 0; 1 where an evaluation or a validation failed; 2 for a mistake in the command line or the
        configuration.
    """
    commands = {**COMMANDS, **{command.name: command.run for command in more}}
    parser = _build_parser(more)
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in commands:
        near = difflib.get_close_matches(command, commands, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        _complain(f"there is no command '{command}'{hint} There are: {', '.join(commands)}")
        return USAGE
    args = parser.parse_args(list(arguments))
    if args.command is None:
        parser.print_help()
        return USAGE
    try:
        return int(commands[args.command](args))
    except (ConfigError, *USER_ERRORS) as error:
        _complain(str(error))
        return USAGE


def _complain(message: str) -> None:
    """Write an error, on the main process only."""
    if is_main(os.environ):
        sys.stderr.write(f"error: {message}\n")
    let_main_speak(os.environ)


def _build_parser(more: Sequence[Command]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lbk_entry.py",
        description="Evaluate and train CoLLaVO, a vision-language model with a crayon prompt (arXiv 2402.11248).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*COMMANDS, *(command.name for command in more)]
    commands = parser.add_subparsers(dest="command", metavar="{" + ",".join(names) + "}", parser_class=_Parser)
    shared = _Parser(add_help=False)
    group = shared.add_argument_group("configuration")
    group.add_argument(
        "--conf_files",
        nargs="+",
        default=[],
        metavar="YAML",
        help="configuration files, later ones win (default: none)",
    )
    group.add_argument(
        "--overrides", nargs="*", default=[], metavar="KEY VALUE", help="dotted keys and values (default: none)"
    )
    run = commands.add_parser("eval", parents=[shared], help="evaluate a checkpoint on benchmarks")
    run.add_argument("--print-config", action="store_true", help="print the resolved configuration as YAML, and end")
    run.add_argument("--check", action="store_true", help="check the configuration without loading torch, and end")
    commands.add_parser("list", help="benchmarks, their config sections and pipelines, and segmenters")
    again = commands.add_parser("score", parents=[shared], help="score answers in a file, without a model")
    again.add_argument("dataset", nargs="?", help="a name of DATASETS.TEST (default: that of the run that wrote them)")
    again.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="FILE",
        help="predictions.jsonl of a run; or JSON or JSON lines with ids and texts",
    )
    again.add_argument("--verdicts", type=Path, metavar="FILE", help="recorded verdicts, instead of asking a judge")
    again.add_argument("--against", type=Path, metavar="FILE", help="another run's answers, compared pair by pair")
    again.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: score/ beside FILE, with a folder in it for each judge)",
    )
    shown = commands.add_parser("show", parents=[shared], help="pictures of a benchmark with map, question and reply")
    shown.add_argument("--num", type=int, default=4, help="how many pictures (default: %(default)s)")
    shown.add_argument(
        "--out", type=Path, default=Path("outputs/show.png"), metavar="PNG", help="the sheet (default: %(default)s)"
    )
    drawn = commands.add_parser("segment", parents=[shared], help="panoptic maps of pictures, by the segmenter alone")
    drawn.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures of any size and mode")
    drawn.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/segment"),
        metavar="DIR",
        help="folder of overlays, id maps and panoptic.json (default: %(default)s)",
    )
    check = commands.add_parser("validate", parents=[shared], help="check a benchmark's files, without a model")
    for command in more:
        parents = [shared] if command.configured else []
        command.options(commands.add_parser(command.name, parents=parents, help=command.help))
    check.add_argument("dataset", help="names as in DATASETS.TEST, separated by commas, or all; see list")
    return parser


def _configuration(args: argparse.Namespace) -> tuple[EvalConfig, Catalog]:
    return read_configuration(args.conf_files, args.overrides)


def _eval(args: argparse.Namespace) -> int:
    config, catalog = _configuration(args)
    if args.print_config:
        sys.stdout.write(config.resolved_yaml)
        return 0
    check(config, catalog)
    if args.check:
        return 0
    return evaluate(config, catalog)


def check(config: EvalConfig, catalog: Catalog) -> None:
    """Check what can be known of a run before anything is loaded.

    Raises:
        ConfigError, RunError, DataError: a dataset, pipeline, segmenter or folder that is not there.
        CheckpointError: a checkpoint that is not there, whose files do not fit, or that the configuration contradicts.
    """
    plan = make_plan(config, catalog)
    segmenter = config.SEGMENTER.resolved()
    if asks_model(task.pipeline.declaration for task in plan.tasks):
        checkpoint = describe_checkpoint(locate(config.RESUME_FROM)).folder
        segmenter = settings_for(checkpoint, config.CRAYON, config.SEGMENTER).segmenter
    for root in plan.roots:
        if not root.is_dir():
            raise DataError(f"{root}: no such dataset folder (DATASETS.ROOT or an environment variable names it)")
    backends = segmenter_backends()
    if segmenter.NAME not in backends:
        near = difflib.get_close_matches(segmenter.NAME, backends, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(f"SEGMENTER.NAME: no '{segmenter.NAME}'{hint} There are: {', '.join(backends)}")


def segmenter_backends() -> list[str]:
    """Names that ``SEGMENTER.NAME`` may have."""
    from modeling.segmenters import backends

    return backends()


def _list(args: argparse.Namespace) -> int:
    catalog = load_catalog()
    rows = [("DATASETS.TEST", "benchmark", "config section", "PIPELINE")]
    for name, benchmark in catalog.benchmarks.items():
        pipeline = type(select_pipeline(None, benchmark)).__name__
        rows.append((name, benchmark.title, benchmark.section, pipeline))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)) + "\n")
    maps = [name for name, benchmark in catalog.benchmarks.items() if benchmark.measures_maps]
    sys.stdout.write(f"\n{', '.join(maps)}: the segmenter's maps; needs no RESUME_FROM, and is not part of all.\n")
    sys.stdout.write(f"PIPELINE may be left out, or written without {PREFIX}.\n")
    sys.stdout.write(f"SEGMENTER.NAME: {', '.join(segmenter_backends())}\n")
    return 0


def _score(args: argparse.Namespace) -> int:
    beside = args.predictions.parent / "config.yaml"
    if not args.conf_files and beside.is_file():
        args.conf_files = [beside]  # of the run that wrote the answers
    config, catalog = _configuration(args)
    source = Source(predictions=args.predictions, verdicts=args.verdicts, against=args.against)
    return rescore(config, catalog, source, args.dataset, args.out)


def _validate(args: argparse.Namespace) -> int:
    config, catalog = _configuration(args)
    chosen = catalog.select(args.dataset)
    pipelines = [select_pipeline(config.PIPELINE, config.declared(benchmark)) for benchmark in chosen]
    roots = data_roots(config.DATASETS.ROOT, os.environ)
    complete = [validate(pipeline, roots) for pipeline in pipelines]
    if len(complete) > 1:
        lacking = [p.declaration.dataset for p, whole in zip(pipelines, complete, strict=True) if not whole]
        listed = f"; incomplete: {', '.join(lacking)}" if lacking else ""
        sys.stdout.write(f"{sum(complete)} of {len(complete)} benchmarks are complete{listed}\n")
    return 0 if all(complete) else FAILED


def _show(args: argparse.Namespace) -> int:
    config, catalog = _configuration(args)
    check(config, catalog)
    if args.num < 1:
        raise ConfigError(f"--num must be at least 1, got {args.num}")
    if not asks_model(catalog.select(config.DATASETS.TEST)[:1]):
        raise ConfigError("DATASETS.TEST: show asks the model, and this benchmark has no questions; see segment")
    from .show import show  # not before it is known that all is there: drawing needs more than checking

    return show(config, catalog, args.num, args.out, os.environ)


def _segment(args: argparse.Namespace) -> int:
    config, _ = _configuration(args)
    from .segment import segment  # needs torch, as any segmenter does

    return segment(config, args.images, args.out)


COMMANDS = {
    "eval": _eval,
    "show": _show,
    "segment": _segment,
    "score": _score,
    "list": _list,
    "validate": _validate,
}
