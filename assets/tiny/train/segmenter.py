"""Make the tiny X-Decoder, which segments the images of the tiny world, from nothing on a CPU.

    python -m assets.tiny.train.segmenter outputs/tiny_segmenter --seed 0

draws scenes, trains through ``lbk_entry.py train`` (configs/segmenter_xdecoder_tiny.yaml), and writes the result in
half precision to ``<directory>/shipped``, as ``assets/tiny/segmenter`` has it: ``SEGMENTER.NAME xdecoder``,
``SEGMENTER.PATH`` that folder, ``SEGMENTER.SHORT_SIDE`` XDECODER.SIDE of that configuration. A run that was cut off
goes on with what it has.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from configs.load import REPOSITORY
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.xdecoder.checkpoint import KeptEmbeddings, load_model, save_model, text_digest
from modeling.segmenters.xdecoder.vocabulary import make_vocabulary
from trainer.checkpoint_folders import folder_of

from .scores import overrides
from .ship import write_recipe

CONFIGURATION = "configs/segmenter_xdecoder_tiny.yaml"


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m assets.tiny.train.segmenter", description="Make the tiny X-Decoder."
    )
    parser.add_argument("directory", type=Path, help="gets all parts; the result is in <directory>/shipped")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, weights and order (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=16_000, help="to learn from (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3600, help="updates (default: %(default)s)")
    args = parser.parse_args()
    here = args.directory.resolve()
    seed, scenes = str(args.seed), str(args.scenes)
    draw = ["-m", "assets.tiny.world", str(here / "lessons"), "--lessons", "--seed", seed, "--scenes", scenes]
    settings = {
        "SAVE_DIR": here / "training",
        "RESUME": True,
        "DATASETS.ROOT": here / "lessons",
        "TRAIN.STEPS": args.steps,
        "TRAIN.SEED": args.seed,
    }
    code = _run(draw) or _run(["lbk_entry.py", "train", "--conf_files", CONFIGURATION, *overrides(settings)])
    if code == 0:
        ship(folder_of(here / "training", args.steps), here / "shipped")
        settings = {"seed": args.seed, "scenes": args.scenes, "steps": args.steps}
        write_recipe(
            here / "shipped",
            "python -m assets.tiny.train.segmenter",
            settings,
            {"log.jsonl": here / "training" / "log.jsonl"},
        )
        sys.stdout.write(f"the tiny X-Decoder is in {here / 'shipped'}\n")
    return code


def ship(trained: Path, target: Path) -> None:
    """Copy an X-Decoder in half precision, with the embeddings of its classes by the rounded text encoder.

    Args:
        trained: a checkpoint of stage segmenter.
        target: replaced.

    Raises:
        SegmenterError: ``trained`` is no X-Decoder, or keeps no classes.
    """
    loaded = load_model(trained)
    if loaded.kept is None:
        raise SegmenterError(f"{trained} keeps no class embeddings; is it a checkpoint of stage segmenter?")
    names, stuff = loaded.kept.classes, loaded.kept.stuff
    rounded = loaded.model.half().float()
    vectors = make_vocabulary(replace(loaded, model=rounded, kept=None), names, stuff, "", "cpu").vectors
    kept = KeptEmbeddings(classes=names, stuff=stuff, vectors=vectors, text_digest=text_digest(rounded.state_dict()))
    shutil.rmtree(target, ignore_errors=True)
    save_model(target, rounded.half(), kept, prompts=loaded.prompts)


def _run(words: list[str]) -> int:
    return subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
