"""Make the trained tiny CoLLaVO from nothing.

    python -m assets.tiny.train outputs/tiny_from_scratch --seed 0

draws scenes, teaches the vision tower and the language model, then runs both training steps of CoLLaVO through
``lbk_entry.py train``. What is already there is kept: a run that was cut off goes on with the part that it was in, and
a step whose last checkpoint is there is not started again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from configs.load import REPOSITORY, find_file, read_yaml
from trainer.checkpoint_folders import folder_of

from .scores import overrides

IMAGE_SIZE, PATCH_SIZE = 112, 14
_VOCABULARY_SCENES = 2000


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m assets.tiny.train", description="Make the tiny CoLLaVO from nothing."
    )
    parser.add_argument("directory", type=Path, help="gets all parts; the result is in <directory>/shipped")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, weights and order (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=24_000, help="for tower and language (default: %(default)s)")
    parser.add_argument("--lessons", type=int, default=8000, help="scenes for both steps (default: %(default)s)")
    parser.add_argument("--vision-steps", type=int, default=3000, help="updates (default: %(default)s)")
    parser.add_argument("--look-up-steps", type=int, default=500, help="updates, first phase (default: %(default)s)")
    parser.add_argument("--language-steps", type=int, default=2500, help="updates, then (default: %(default)s)")
    parser.add_argument("--box-steps", type=int, default=600, help="updates, to read boxes (default: %(default)s)")
    parser.add_argument("--step1", type=int, default=200, help="updates of crayon prompt tuning (default: %(default)s)")
    parser.add_argument("--step2", type=int, default=800, help="updates of Dual QLoRA (default: %(default)s)")
    parser.add_argument(
        "--segmenter",
        type=Path,
        help="X-Decoder whose maps step 2 shows with visual instructions (default: ground-truth maps)",
    )
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    say = _teller(args.directory / "log.txt")
    if not (args.directory / "base" / "config.json").is_file():
        _make_base(args, say)
    below = args.directory / "base"
    for number, steps in ((1, args.step1), (2, args.step2)):
        last = folder_of(args.directory / f"step{number}", steps)
        if not last.is_dir():  # a checkpoint appears whole or not at all
            code = _lessons(args) or _step(args, number, below, steps, say)
            if code:
                return code
        below = last
    from .ship import ship, write_recipe

    here = args.directory
    ship(below, here / "shipped")
    settings = {name: value for name, value in vars(args).items() if name not in ("directory", "segmenter")}
    settings["segmenter"] = args.segmenter and args.segmenter.name
    logs = {"base.log": here / "log.txt"} | {f"step{n}.jsonl": here / f"step{n}" / "log.jsonl" for n in (1, 2)}
    write_recipe(here / "shipped", "python -m assets.tiny.train", settings, logs)
    say(f"the tiny CoLLaVO is in {args.directory / 'shipped'}")
    return 0


def _teller(file: Path) -> Callable[[str], None]:
    """Says a line on the terminal and keeps it in a file, each with the seconds since the start."""
    begun = time.perf_counter()

    def say(line: str) -> None:
        text = f"{time.perf_counter() - begun:6.0f} s  {line}\n"
        sys.stdout.write(text)
        sys.stdout.flush()
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text)

    return say


def _make_base(args: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Tower, language model, tokenizer: a whole checkpoint in ``base``."""
    import torch

    from collavo.checkpoint.names import share_weights
    from collavo.model import CoLLaVOForConditionalGeneration
    from collavo.processing import CoLLaVOProcessor
    from collavo.tokenizer import tiny_tokenizer
    from modeling.weight_files import load, save

    from .language import BOXES, EVERYTHING, LOOK_UPS, OTHER, TrainingPhase, features_of, teach_language
    from .rows import Packer
    from .scenes import draw
    from .start import config_of
    from .vision import teach_tower
    from .vocabulary import pieces

    torch.set_flush_denormal(True)  # moments of frozen parameters shrink to numbers that make a CPU crawl
    grid = IMAGE_SIZE // PATCH_SIZE
    drawn = draw(args.seed, args.scenes, IMAGE_SIZE, grid, os.cpu_count() or 1)
    say(f"{args.scenes} scenes are drawn")
    known = (text for scene in drawn.lessons[:_VOCABULARY_SCENES] for x in scene for text in (x.question, x.answer))
    tokenizer = tiny_tokenizer(pieces(known))
    processor = CoLLaVOProcessor(tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    torch.manual_seed(args.seed)
    config = config_of(tokenizer, IMAGE_SIZE, PATCH_SIZE)
    model = CoLLaVOForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    numbers = sum(parameter.numel() for parameter in model.parameters())
    say(f"the model has {numbers / 1e6:.2f} million parameters and {len(tokenizer)} words")
    settings = {"seed": args.seed, "say": say}
    tower, file = model.vision_tower, args.directory / "tower.safetensors"
    if file.is_file():
        tower.load_state_dict(load(file))
    else:
        teach_tower(tower, processor, drawn, steps=args.vision_steps, batch_size=64, rate=1.5e-3, **settings)
        save(tower.state_dict(), file)
    features = features_of(model, lambda part: processor.pixel_values(drawn.images[part]), len(drawn.images))
    packer, settings = Packer(tokenizer, grid**2), {"batch_size": 32, "questions": 10, **settings}
    talking = args.directory / "language.safetensors"
    if talking.is_file():
        model.load_state_dict(load(talking))
    else:
        phases = (
            TrainingPhase(steps=args.look_up_steps, weights=LOOK_UPS, other=0.0),
            TrainingPhase(steps=args.language_steps, weights=EVERYTHING, other=OTHER),
        )
        teach_language(model, packer, drawn, features, phases, rate=2e-3, **settings)
        save(model.state_dict(), talking)
    boxes = TrainingPhase(steps=args.box_steps, weights=BOXES, other=OTHER)
    teach_language(model, packer, drawn, features, [boxes], rate=1.5e-3, reading=True, **settings)
    model.save_pretrained(args.directory / "base")
    share_weights(args.directory / "base")
    processor.save_pretrained(args.directory / "base")


def _lessons(args: argparse.Namespace) -> int:
    """Scenes and questions for both steps, in ``lessons``."""
    command = [sys.executable, "-m", "assets.tiny.world", str((args.directory / "lessons").resolve()), "--lessons"]
    command += ["--seed", str(args.seed), "--scenes", str(args.lessons)]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


def _step(args: argparse.Namespace, number: int, below: Path, steps: int, say: Callable[[str], None]) -> int:
    """One of CoLLaVO's training steps, by the command that every user has; returns its exit code."""
    here = args.directory.resolve()
    maps = here / "lessons" / "coco" / "annotations" / "panoptic_train2017"
    shown: dict[str, object] = {"SEGMENTER.PATH": f"{maps}.json", "SEGMENTER.IMAGES": maps}
    if number == 2 and args.segmenter is not None:
        evaluated = read_yaml(find_file("configs/collavo_tiny.yaml"))["SEGMENTER"]
        shown = {f"SEGMENTER.{key}": value for key, value in evaluated.items()}
        shown["SEGMENTER.PATH"] = args.segmenter.resolve()
    settings = {
        **shown,
        "SEGMENTER.CACHE": here / "maps",
        "SAVE_DIR": here / f"step{number}",
        "RESUME_FROM": below.resolve(),
        "RESUME": True,
        "DATASETS.ROOT": here / "lessons",
        "TRAIN.STEPS": steps,
        "TRAIN.SEED": args.seed,
    }
    command = [sys.executable, "lbk_entry.py", "train", "--conf_files", f"configs/collavo_tiny_step{number}.yaml"]
    command += overrides(settings)
    say(f"step {number}: {steps} updates")
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    say(f"step {number}: ended with exit code {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
