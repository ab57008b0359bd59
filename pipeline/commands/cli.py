"""The command line: what each command reads, checks and prints. Importing this loads no torch."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from collavo.checkpoint.examine import describe_checkpoint
from collavo.checkpoint.location import take_base
from collavo.checkpoint.settings import settings_for
from configs.common.paths import user_path
from configs.common.words import did_you_mean, quoted, shown
from configs.load import ConfigError
from datasets.evaluation.judges.options import without_key
from datasets.registration.preflight import missing_files, unknown_placeholders
from datasets.roots import data_roots
from datasets.types import DataError
from modeling.segmenters import backends as segmenter_backends
from modeling.segmenters import check_segmenter

from ..benchmarks import PREFIX, select_pipeline
from ..catalog import Catalog
from ..config import EvalConfig, read_configuration
from ..models.choose import check_model
from ..models.resolve import collavo_checkpoint
from ..results.browse.prediction import PredictionFilter
from ..results.judging import VERDICTS
from ..results.predictions_file import prediction_files
from ..results.report import aligned
from ..results.rescore import ScoringInput, rescore
from ..run.identity import check_settings
from ..run.plan import INTERRUPTED, Plan, asks_model, evaluate, make_plan
from ..runtime.console import say, tell, write_out
from ..runtime.files import check_folder
from ..runtime.launch import is_main, let_main_speak
from ..runtime.lock import check_free
from ..runtime.session import USER_ERRORS
from .listing import list_rows, version
from .validate import SHOWN, validate_all

if TYPE_CHECKING:
    from .fill_maps import ImageSet

EXAMPLES = """\
examples:
  lbk_entry.py list
  lbk_entry.py validate pope_test --overrides DATASETS.ROOT /path/to/dataset
  lbk_entry.py segment dog.jpg --out outputs/dog --overrides SEGMENTER.NAME xdecoder SEGMENTER.PATH /path/to/X-Decoder
  lbk_entry.py maps pope_test gqa_testdev_balanced --conf_files configs/collavo_step2.yaml
  lbk_entry.py score --predictions outputs/collavo_step2/mm-vet/predictions.jsonl
  accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py eval \\
      --conf_files configs/collavo_step2.yaml \\
      --overrides DATASETS.TEST pope_test POPE.TEST.BATCH_SIZE_TOTAL 20 WEIGHT True RESUME_FROM /path/to/CoLLaVO

Keys of --overrides, their types, defaults and meaning: lbk_entry.py keys [PREFIX]
"""
_EVAL = """\
  lbk_entry.py eval --conf_files configs/collavo_tiny.yaml --overrides DATASETS.TEST pope_test
  accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py eval \\
      --conf_files configs/collavo_step2.yaml --overrides DATASETS.TEST pope_test RESUME_FROM /path/to/CoLLaVO
"""
_LIST = """\
  lbk_entry.py list
  lbk_entry.py list --sizes --conf_files my_benchmark.yaml --overrides DATASETS.ROOT /path/to/dataset
"""
_SCORE = """\
  lbk_entry.py score --predictions outputs/collavo_step2/pope_test
  lbk_entry.py score pope_test --predictions replies.jsonl --against other.jsonl --out outputs/score
"""
_SHOW = """\
  lbk_entry.py show --conf_files configs/collavo_tiny.yaml --overrides DATASETS.TEST pope_test --num 4
  lbk_entry.py show outputs/collavo_step2/pope_test --wrong --num 8
"""
_SEGMENT = """\
  lbk_entry.py segment dog.jpg --out outputs/dog
  lbk_entry.py segment *.png --overrides SEGMENTER.NAME xdecoder SEGMENTER.PATH /path/to/X-Decoder
"""
_MAPS = """\
  lbk_entry.py maps pope_test gqa_testdev_balanced --conf_files configs/collavo_step2.yaml
  lbk_entry.py maps train --conf_files configs/collavo_step2.yaml --overrides RESUME_FROM /path/to/CoLLaVO
"""
_VALIDATE = """\
  lbk_entry.py validate pope_test mme --overrides DATASETS.ROOT /path/to/dataset
  lbk_entry.py validate all --quick
"""
USAGE, FAILED = 2, 1
LONGEST_MESSAGE = 1000
"""Characters of a message of `argparse`, which repeats what it was given."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors point to its own help and reach the terminal once, not once a process."""

    @property
    def see_help(self) -> str:
        """Where to read on."""
        return f"Try: {self.prog} --help"

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        _complain(f"{shown(message, LONGEST_MESSAGE)}\n{self.see_help}")
        raise SystemExit(USAGE)


class _Version(argparse.Action):
    """Shows the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        """See `argparse.Action`."""
        tell(f"{version()}\n")
        parser.exit()


def path_argument(text: str) -> Path:
    """A file or folder of the command line, as `argparse` takes it.

    Raises:
        argparse.ArgumentTypeError: no file can have this path.
    """
    try:
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{quoted(text)}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that another package adds to those here.

    Attributes:
        name: on the command line.
        help: one line.
        options: adds its own options to a parser.
        configured: whether it takes ``--conf_files`` and ``--overrides``.
        run: from its arguments to the exit code.
        examples: command lines for its help, one a line.
        images: for ``maps`` NAME: from configuration files and overrides to the configuration and the images whose maps
            the command will need; None where it needs none.
        data: checks the data that the command works on, for ``validate NAME``; None where there is nothing to check.
    """

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    configured: bool = True
    images: Callable[[Sequence[str], Sequence[str]], tuple[EvalConfig, Catalog, ImageSet]] | None = None
    data: Callable[[argparse.Namespace], int] | None = None
    examples: str = ""


def main(arguments: Sequence[str], more: Sequence[Command] = ()) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name.
        more: commands besides those here.
    Returns: the exit code: 0; 1 where an evaluation or a validation failed, or a file cannot be read or written; 2 for
        a mistake in the command line or the configuration; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    commands = {**COMMANDS, **{command.name: command.run for command in more}}
    parser, own = build_parser(more)
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in commands:
        hint = did_you_mean(command, commands, n=1)
        _complain(f"there is no command '{shown(command)}'{hint} There are: {', '.join(commands)}")
        return USAGE
    args, unknown = parser.parse_known_args(list(arguments))
    if args.command is None:
        parser.print_help()
        return USAGE
    if unknown:
        own[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.command == "validate":
        checks = {command.name: command.data for command in more if command.data is not None}
        chosen = [checks[name] for name in args.dataset if name in checks]
        if chosen and len(args.dataset) > 1:
            own["validate"].error(f"{', '.join(checks)} is checked alone, without names of benchmarks")
        if chosen:
            commands["validate"] = chosen[0]
    try:
        return int(commands[args.command](args))
    except USER_ERRORS as error:
        _complain(f"{error}\n{own[args.command].see_help}" if args.command == "score" else str(error))
    except OSError as error:
        _complain(f"{error.strerror or error}{'' if error.filename is None else f': {shown(str(error.filename))}'}")
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return USAGE


def _complain(message: str) -> None:
    """Write an error, on the main process only."""
    if is_main(os.environ):
        say(f"error: {without_key(message, os.environ)}")
    let_main_speak(os.environ)


def build_parser(more: Sequence[Command]) -> tuple[CommandParser, Mapping[str, CommandParser]]:
    """Make the parser of the command line.

    Args:
        more: commands besides those here.
    Returns: the parser, and those of the commands by name.
    """
    parser = CommandParser(
        prog="lbk_entry.py",
        description="Evaluate and train CoLLaVO, a vision-language model with a crayon prompt (arXiv 2402.11248).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and the commit, and end")
    names = [*COMMANDS, *(command.name for command in more)]
    commands = parser.add_subparsers(dest="command", metavar="{" + ",".join(names) + "}", parser_class=CommandParser)
    shared = CommandParser(add_help=False)
    group = shared.add_argument_group("configuration")
    group.add_argument(
        "--conf_files",
        nargs="+",
        action="extend",
        default=[],
        metavar="YAML",
        help="configuration files, later ones win (default: none)",
    )
    group.add_argument(
        "--overrides",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="dotted keys and values (default: none)",
    )
    run = commands.add_parser("eval", parents=[shared], **described("evaluate a checkpoint on benchmarks", _EVAL))
    instead = run.add_argument_group("instead of evaluating")
    instead.add_argument("--print-config", action="store_true", help="print the resolved configuration as YAML")
    instead.add_argument("--check", action="store_true", help="check the configuration, without loading torch")
    listed = commands.add_parser(
        "list",
        parents=[shared],
        **described("name benchmarks with their config sections, scorers and judges, and segmenters", _LIST),
    )
    listed.add_argument_group("output").add_argument(
        "--sizes", action="store_true", help="count the records, which reads the benchmarks' files"
    )
    again = commands.add_parser(
        "score", parents=[shared], **described("score replies in a file, without a model", _SCORE)
    )
    again.add_argument("dataset", nargs="?", help="a name of DATASETS.TEST (default: that of the run that wrote them)")
    replies = again.add_argument_group("replies and verdicts")
    replies.add_argument(
        "--predictions",
        required=True,
        type=path_argument,
        metavar="PATH",
        help="predictions.jsonl of a run, its folder, or that of all its benchmarks; JSON or JSON lines with ids and "
        "texts; a result file of VLMEvalKit, LLaVA or lmms-eval, or the folder of MME's tool",
    )
    replies.add_argument(
        "--verdicts", type=path_argument, metavar="PATH", help="recorded verdicts, instead of asking a judge"
    )
    replies.add_argument(
        "--against", type=path_argument, metavar="PATH", help="another run's replies, compared question by question"
    )
    again.add_argument_group("output").add_argument(
        "--out",
        type=path_argument,
        metavar="DIR",
        help="folder of the results (default: score/ next to PATH, with a folder in it for each judge)",
    )
    shown = commands.add_parser("show", parents=[shared], **described("show images with maps and replies", _SHOW))
    shown.add_argument(
        "predictions",
        nargs="?",
        type=path_argument,
        metavar="PREDICTIONS",
        help="predictions.jsonl of a run, or its folder: its records are shown, and no model is asked",
    )
    group = shown.add_argument_group("records of PREDICTIONS")
    group.add_argument("--wrong", action="store_true", help="what is wrong, unreadable or an error")
    group.add_argument("--id", nargs="+", action="extend", default=[], metavar="ID", help="these records")
    group = shown.add_argument_group("output")
    group.add_argument("--num", type=int, default=4, help="how many images (default: %(default)s)")
    group.add_argument(
        "--out",
        type=path_argument,
        default=Path("outputs/show.png"),
        metavar="PNG",
        help="the sheet (default: %(default)s)",
    )
    drawn = commands.add_parser("segment", parents=[shared], **described("make panoptic maps of images", _SEGMENT))
    drawn.add_argument("images", nargs="+", type=path_argument, metavar="IMAGE", help="images of any size and mode")
    drawn.add_argument_group("output").add_argument(
        "--out",
        type=path_argument,
        default=Path("outputs/segment"),
        metavar="DIR",
        help="folder of overlays, id maps and panoptic.json (default: %(default)s)",
    )
    _add_maps(
        commands.add_parser(
            "maps", parents=[shared], **described("make panoptic maps ahead, for evaluations and training", _MAPS)
        ),
        more,
    )
    check = commands.add_parser(
        "validate",
        parents=[shared],
        **described("check the files of benchmarks or training", _VALIDATE),
    )
    for command in more:
        parents = [shared] if command.configured else []
        added = commands.add_parser(command.name, parents=parents, **described(command.help, command.examples))
        command.options(added)
    others = "".join(f"; {command.name}: the data of the command {command.name}" for command in more if command.data)
    check.add_argument("dataset", nargs="+", help=f"names as in DATASETS.TEST, or all; see list{others}")
    group = check.add_argument_group("how much")
    group.add_argument("--quick", action="store_true", help="look whether images exist, without decoding them")
    group.add_argument("--all", action="store_true", help=f"name all faults, not the first {SHOWN} of a kind")
    return parser, commands.choices


def described(sentence: str, examples: str) -> dict[str, Any]:
    """How a command's help describes it.

    Args:
        sentence: what it does, without a period.
        examples: command lines, one a line; "" for none.
    """
    return {
        "help": sentence,
        "description": f"{sentence[0].upper()}{sentence[1:]}.",
        "epilog": f"examples:\n{examples}" if examples else None,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _add_maps(parser: argparse.ArgumentParser, more: Sequence[Command]) -> None:
    """The arguments of ``maps``."""
    needing = {command.name: command.images for command in more if command.images is not None}
    names = "".join(f", or {name}: what {name} needs with the same configuration" for name in needing)
    parser.add_argument("dataset", nargs="+", help=f"names as in DATASETS.TEST, or all; see list{names}")
    parser.set_defaults(images=needing)


def _configuration(args: argparse.Namespace) -> tuple[EvalConfig, Catalog]:
    config: EvalConfig
    config, catalog = read_configuration(args.conf_files, args.overrides)
    note(config.notes)
    take_base(config.BASE, config.RESUME_FROM)
    return config, catalog


def note(lines: Iterable[str]) -> None:
    """Write what a user should know of his configuration, on the main process only."""
    for line in lines if is_main(os.environ) else ():
        say(f"note: {line}")


def _eval(args: argparse.Namespace) -> int:
    config, catalog = _configuration(args)
    if args.print_config:
        write_out(config.resolved_yaml)
        return 0
    plan = check(config, catalog)
    check_free(plan.save_dir)
    check_folders(config, plan)
    if args.check:
        return 0
    return evaluate(config, catalog)


def check(config: EvalConfig, catalog: Catalog) -> Plan:
    """Check what can be known of a run before anything is loaded; returns its plan.

    Raises:
        ConfigError, RunError, DataError, SegmenterError: a dataset, pipeline, segmenter or folder that is not there.
        CheckpointError: a checkpoint that is not there, whose files do not fit, or that the configuration contradicts.
    """
    plan = make_plan(config, catalog)
    check_folder("SAVE_DIR", plan.save_dir)
    segmenter = config.SEGMENTER.resolved()
    if asks_model(task.pipeline.declaration for task in plan.tasks):
        if config.MODEL.NAME == "collavo":
            checkpoint = describe_checkpoint(collavo_checkpoint(config.RESUME_FROM)).folder
            segmenter = settings_for(checkpoint, config.CRAYON, config.SEGMENTER).segmenter
        else:
            check_model(config)
    for root in plan.roots:
        if not root.is_dir():
            raise DataError(f"{root}: no such dataset folder (DATASETS.ROOT or an environment variable names it)")
    check_data(config, plan)
    if config.MODEL.NAME == "collavo" or any(task.pipeline.declaration.measures_maps for task in plan.tasks):
        check_segmenter(segmenter)
    return plan


def check_data(config: EvalConfig, plan: Plan) -> None:
    """Check prompts, and whether the benchmarks' files are there. Opens none.

    Raises:
        ConfigError: a prompt names what no record has.
        DataError: files of a benchmark that is asked for by name are missing, or those of all; or a declaration names
            a reader or an option that there is not.
    """
    lacking: dict[str, list[str]] = {}
    for task in plan.tasks:
        benchmark = task.pipeline.declaration
        unknown, known = unknown_placeholders(benchmark)
        if unknown:
            own = config.sections[benchmark.section].TEST.PROMPT is not None
            where = f"{benchmark.section}.TEST.PROMPT" if own else f"benchmark {benchmark.name}, prompt"
            raise ConfigError(f"{where}: names {{{shown(unknown[0])}}}; a record has {', '.join(known)}")
        if missing := missing_files(benchmark, plan.roots):
            lacking[task.dataset] = missing
    named = [task.dataset for task in plan.tasks if not task.optional and task.dataset in lacking]
    if named or len(lacking) == len(plan.tasks):
        raise DataError("\n".join(f"{name}: {reason}" for name in named or lacking for reason in lacking[name]))


def check_folders(config: EvalConfig, plan: Plan) -> None:
    """Check that no folder of results holds those of other settings, as far as settings alone tell.

    Raises:
        RunError: one does, and ``EVAL.ON_CHANGE`` is refuse.
    """
    if config.EVAL.ON_CHANGE == "refuse":
        engine = {"weight": config.WEIGHT, "bits": config.LLM.BITS, "dtype": config.LLM.DTYPE}
        for task in plan.tasks:
            check_settings(task.folder / "run.json", task.pipeline.declaration, engine)


def _list(args: argparse.Namespace) -> int:
    rows = list_rows(args.conf_files, args.overrides, sizes=args.sizes)
    tell(f"{aligned(rows)}\n")
    maps = [row[0] for row in rows if row[-2] == "panoptic_quality"]
    tell(f"\n{', '.join(maps)}: the segmenter's maps; needs no MODEL.PATH, and is not part of all.\n")
    tell(f"PIPELINE may be left out, or written without {PREFIX}.\n")
    tell("judge: a language model has a part in the official rules (JUDGE); without one, offline rules or no score.\n")
    tell(f"SEGMENTER.NAME: {', '.join(segmenter_backends())}\n")
    return 0


def _score(args: argparse.Namespace) -> int:
    files = prediction_files(args.predictions, args.dataset)
    given = [name for name in ("dataset", "verdicts", "against", "out") if getattr(args, name)]
    if len(files) > 1 and given:
        names = ", ".join(shown(file.parent.name) for file in files)
        words = "a dataset" if given[0] == "dataset" else f"--{given[0]}"
        raise ConfigError(
            f"{words} is for one benchmark, but {shown(str(args.predictions))} holds several; name one of: {names}"
        )
    return _score_one(args, files[0]) if len(files) == 1 else max(_score_next(args, file) for file in files)


def _score_next(args: argparse.Namespace, file: Path) -> int:
    """Score one of several files; what is wrong with it is said, and the others are scored all the same."""
    try:
        return _score_one(args, file)
    except USER_ERRORS as error:
        _complain(f"{shown(str(file))}: {error}")
        return FAILED


def _score_one(args: argparse.Namespace, file: Path) -> int:
    beside = file.parent / "config.yaml"
    if not args.conf_files and beside.is_file():  # of the run that wrote the answers
        args = argparse.Namespace(**{**vars(args), "conf_files": [beside]})
    config, catalog = _configuration(args)
    against = None if args.against is None else prediction_files(args.against, file.parent.name)
    if against and len(against) > 1:
        raise ConfigError(f"--against: {shown(str(args.against))} holds several benchmarks; name the folder of one")
    verdicts = args.verdicts
    if verdicts is not None and verdicts.is_dir():
        verdicts = verdicts / VERDICTS
    if verdicts is not None and not verdicts.is_file():
        raise ConfigError(f"--verdicts: {shown(str(verdicts))}: no such file")
    source = ScoringInput(predictions=file, verdicts=verdicts, against=against[0] if against else None)
    return rescore(config, catalog, source, args.dataset, args.out)


def _validate(args: argparse.Namespace) -> int:
    config, catalog = _configuration(args)
    chosen = catalog.select(",".join(args.dataset))
    pipelines = [select_pipeline(config.PIPELINE, config.declared(benchmark)) for benchmark in chosen]
    roots = data_roots(config.DATASETS.ROOT, os.environ)
    return 0 if validate_all(pipelines, roots, quick=args.quick, shown=None if args.all else SHOWN) else FAILED


def _show(args: argparse.Namespace) -> int:
    if args.num < 1:
        raise ConfigError(f"--num must be at least 1, got {args.num}")
    if args.predictions is not None:
        from .show_predictions import show_predictions

        wanted = PredictionFilter(wrong=args.wrong, ids=tuple(args.id), num=args.num)
        return show_predictions(args.predictions, wanted, args.out, args.conf_files, args.overrides)
    if args.wrong or args.id:
        raise ConfigError(f"{'--wrong' if args.wrong else '--id'} needs the predictions of a run: show PREDICTIONS ...")
    config, catalog = _configuration(args)
    if config.MODEL.NAME != "collavo":
        raise ConfigError(f"MODEL.NAME: show draws CoLLaVO's maps next to its replies; {config.MODEL.NAME} has none")
    check(config, catalog)
    if not asks_model(catalog.select(config.DATASETS.TEST)[:1]):
        raise ConfigError("DATASETS.TEST: show asks the model, and this benchmark has no questions; see segment")
    from .show import show  # not before it is known that all is there: drawing needs more than checking

    return show(config, catalog, args.num, args.out, os.environ)


def _segment(args: argparse.Namespace) -> int:
    config, _ = _configuration(args)
    from .segment import segment  # needs torch, as any segmenter does

    return segment(config, args.images, args.out)


def _maps(args: argparse.Namespace) -> int:
    commands = [name for name in dict.fromkeys(args.dataset) if name in args.images]
    if len(commands) > 1:
        raise ConfigError(f"maps: {' and '.join(commands)} have configurations of their own; name one at a time")
    needed = []
    if commands:
        config, catalog, images = args.images[commands[0]](args.conf_files, args.overrides)
        note(config.notes)
        needed.append(images)
    else:
        config, catalog = _configuration(args)
    from .fill_maps import benchmark_images, check_fill, make_maps

    needed += benchmark_images(config, catalog, [name for name in args.dataset if name not in commands])
    check_fill(config)
    return make_maps(config, needed)


COMMANDS = {
    "eval": _eval,
    "show": _show,
    "segment": _segment,
    "maps": _maps,
    "score": _score,
    "list": _list,
    "validate": _validate,
}
