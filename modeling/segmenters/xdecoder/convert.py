"""Turn a released X-Decoder checkpoint into a directory that keeps its class embeddings.

    python -m modeling.segmenters.xdecoder.convert xdecoder_focalt.pt DIRECTORY [--no-text] [--classes "dog,cat"]

Embedding the classes takes minutes on a CPU; from the directory it takes none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SegmenterError
from .checkpoint import KeptEmbeddings, load_model, save_model, text_digest
from .vocabulary import make_vocabulary


def convert(
    source: Path,
    folder: Path,
    names: Sequence[str] = (),
    stuff: Sequence[str] = (),
    *,
    tokenizer: str = "",
    with_text: bool = True,
    device: Any = "cpu",
) -> KeptEmbeddings:
    """Load a checkpoint, embed its classes, and save both.

    Args:
        source: what `load_model` takes.
        folder: the new directory.
        names: of the classes; empty for COCO panoptic.
        stuff: those of them that are stuff although COCO panoptic has no such stuff.
        tokenizer: directory of a tokenizer, for names that are not COCO panoptic's.
        with_text: keep the text encoder, so that other classes can be named later.
        device: where the text encoder runs.

    Returns:
        the embeddings that now lie in the directory.

    Raises:
        SegmenterError: the checkpoint or the classes are no good.
    """
    loaded = load_model(source)
    vocabulary = make_vocabulary(loaded, names, stuff, tokenizer, device)
    classes = vocabulary.classes
    kept = KeptEmbeddings(
        classes=classes.names,
        stuff=tuple(name for name, thing in zip(classes.names, classes.is_thing, strict=True) if not thing),
        vectors=vocabulary.vectors,
        text_digest=text_digest(loaded.model.state_dict()),
    )
    save_model(folder, loaded.model, kept, prompts=loaded.prompts, with_text=with_text)
    return kept


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Save an X-Decoder checkpoint together with its class embeddings.")
    parser.add_argument("source", type=Path, help="released checkpoint (.pt), or a directory of this project's")
    parser.add_argument("folder", type=Path, help="directory to write")
    parser.add_argument("--classes", default="", help="names, separated by commas (default: COCO panoptic)")
    parser.add_argument("--stuff", default="", help="those of them that are stuff without being COCO panoptic's")
    parser.add_argument("--tokenizer", default="", help="directory of CLIP's tokenizer, for other names")
    parser.add_argument("--no-text", action="store_true", help="leave the text encoder out: these classes only")
    parser.add_argument("--device", default="cpu", help="where the text encoder runs (default: %(default)s)")
    given = parser.parse_args()
    names, stuff = ([name.strip() for name in text.split(",")] if text else [] for text in (given.classes, given.stuff))
    try:
        kept = convert(
            given.source, given.folder, names, stuff,
            tokenizer=given.tokenizer, with_text=not given.no_text, device=given.device,
        )  # fmt: skip
    except SegmenterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{given.folder}: weights and embeddings of {len(kept.classes)} classes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
