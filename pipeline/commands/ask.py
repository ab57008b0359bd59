"""``ask``: questions about one image, answered as they are generated."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collavo.errors import ImageError, NonFiniteError
from collavo.image_input import decode_image_input
from configs.load import ConfigError
from datasets.types import DataError
from modeling.segmenters.coco_format import at_own_size

from ..runtime.console import say, tell, warn, write_out
from ..runtime.errors import RunError
from ..runtime.files import format_of, json_line, make_folder, write_image
from .cli import Command, path_argument
from .loaded_model import choose_model, load_chosen

if TYPE_CHECKING:
    from collavo import CoLLaVO

PROMPT = "> "
EXAMPLES = """\
  lbk_entry.py ask dog.jpg "What is the dog doing?" --overrides RESUME_FROM /path/to/CoLLaVO
  lbk_entry.py ask dog.jpg "How many dogs are there?" "What colour are they?" --map map.png --json
  lbk_entry.py ask dog.jpg                        # asks for questions until an empty line
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=path_argument, metavar="IMAGE", help="of any size and mode")
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="QUESTION",
        help="(default: read from standard input, a line each)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--map", type=path_argument, metavar="PNG", help="write the image under its panoptic map")
    group.add_argument("--json", action="store_true", help="print a JSON object for each question, instead of text")
    group = parser.add_argument_group("generation")
    group.add_argument("--no-crayon", action="store_true", help="leave the crayon prompt out")
    group.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 is greedy (default: %(default)s)")
    group.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        help="sample among the likeliest tokens that have this probability together (default: %(default)s)",
    )
    group.add_argument("--seed", type=int, default=0, help="of sampling (default: %(default)s)")
    group.add_argument("--num-beams", type=int, default=1, help="several: no streaming (default: %(default)s)")
    group.add_argument("--max-new-tokens", type=int, default=256, help="longest reply (default: %(default)s)")


def generation_options(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the search, checked.

    Raises:
        ConfigError: one is out of its range.
    """
    if args.temperature < 0 or args.temperature == float("inf") or args.temperature != args.temperature:
        raise ConfigError(f"--temperature must be 0 or more, got {args.temperature:g}")
    if not 0 < args.top_p <= 1:
        raise ConfigError(f"--top-p must be above 0 and at most 1, got {args.top_p:g}")
    if args.num_beams < 1 or args.max_new_tokens < 1:
        raise ConfigError("--num-beams and --max-new-tokens must be at least 1")
    if args.temperature > 0 and args.num_beams > 1:
        raise ConfigError("--temperature goes with --num-beams 1")
    names = ("temperature", "top_p", "seed", "num_beams", "max_new_tokens")
    return {name: getattr(args, name) for name in names}


def _ask(args: argparse.Namespace) -> int:
    options = generation_options(args)
    if args.map is not None:
        _check_format(args.map)
    try:
        decode_image_input(args.image, 1)  # what is no image is said before anything is loaded
        chosen = choose_model(args.conf_files, args.overrides)
        model = load_chosen(chosen)
        if args.map is not None:
            write_map(model, args.image, args.map)
        for question in args.questions or _asked():
            _answer(model, args, question, options)
    except ImageError as error:
        raise DataError(str(error)) from None
    except NonFiniteError as error:
        raise RunError(str(error)) from None
    return 0


def _check_format(file: Path) -> None:
    try:
        format_of(file)
    except ValueError as error:
        raise ConfigError(f"--map: {error}") from None


def _asked() -> Iterator[str]:
    """Questions from the terminal until an empty line, or from standard input to its end."""
    terminal = sys.stdin.isatty()
    if terminal:
        say("Ask about the image; an empty line ends.")
    while True:
        if terminal:
            write_out(PROMPT)
        line = sys.stdin.readline()
        if not line or (terminal and not line.strip()):
            return
        if line.strip():
            yield line.strip()


def _answer(model: CoLLaVO, args: argparse.Namespace, question: str, options: dict[str, Any]) -> None:
    """Answer one question; the prefix of the image is kept between calls."""
    begun = time.monotonic()
    heard = (lambda piece: None) if args.json else tell
    reply = model.answer_aloud(args.image, question, heard, crayon=not args.no_crayon, **options)
    if args.json:
        line = {
            "image": str(args.image),
            "question": question,
            "reply": reply.text,
            "prompt": reply.prompt,
            "finished": reply.finished,
            "tokens": reply.num_tokens,
            "seconds": round(time.monotonic() - begun, 3),
        }
        write_out(json_line(line).decode())
        return
    tell("\n")
    if not reply.finished:
        warn(f"cut at {options['max_new_tokens']} tokens (--max-new-tokens)")


def write_map(model: CoLLaVO, image: Path, out: Path) -> None:
    """Write an image under its panoptic map, at its own size.

    Raises:
        SegmenterError: the image cannot be segmented.
        WriteError: the file cannot be written.
    """
    from .drawing import overlay

    whole = decode_image_input(image, None)
    panoptic = at_own_size(model.segmenter, [whole])[0]
    make_folder(out.parent)
    write_image(out, overlay(whole.pixels, panoptic, model.segmenter.categories))
    say(f"map: {out}")


ASK = Command(name="ask", help="ask questions about one image", options=_options, run=_ask, examples=EXAMPLES)
