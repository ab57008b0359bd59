"""A tiny CoLLaVO with random weights, made from a seed and saved as any checkpoint is.

    python -m assets.tiny.random_checkpoint DIR --seed 0

It answers nonsense, through every line of code that the full-size model runs through.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

SEED_FILE = "made_from_seed.txt"
IMAGE_SIZE, PATCH_SIZE = 112, 14


def make_tiny(directory: Path, seed: int) -> bool:
    """Write a tiny checkpoint: configuration, safetensors, tokenizer, processor.

    Args:
        directory: made if absent; nothing happens if a complete checkpoint of this seed is there.
        seed: of the weights.
    Returns: whether anything was written.

    Raises:
        ValueError: the directory holds something else.
    """
    marker = directory / SEED_FILE
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == str(seed):
        return False
    if directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not a tiny checkpoint of seed {seed}: remove it or choose another folder")
    partial = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    _write(partial, seed)
    (partial / SEED_FILE).write_text(f"{seed}\n", encoding="utf-8")
    if directory.exists():
        directory.rmdir()
    try:
        partial.rename(directory)
    except OSError:  # another process was faster; its checkpoint is the same
        shutil.rmtree(partial)
    return True


def _write(directory: Path, seed: int) -> None:
    import torch
    from transformers.utils import logging

    from collavo.checkpoint.names import share_weights
    from collavo.model import CoLLaVOForConditionalGeneration
    from collavo.processing import CoLLaVOProcessor
    from collavo.tokenizer import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model = CoLLaVOForConditionalGeneration(tiny_config(len(tokenizer), tokenizer.convert_tokens_to_ids("<image>")))
    for name, parameter in model.named_parameters():  # wide enough that replies differ by image and by question
        if parameter.dim() > 1:
            table = any(part in name for part in ("embed", "semantic", "numbering"))
            torch.nn.init.normal_(parameter, std=0.1 if table else 1.5 / parameter[0].numel() ** 0.5)
    logging.disable_progress_bar()
    model.save_pretrained(directory)
    share_weights(directory)
    CoLLaVOProcessor(tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE).save_pretrained(directory)


def tiny_config(vocabulary: int, image_token_id: int):  # type: ignore[no-untyped-def]
    """Sizes of the tiny model: 8x8 image tokens, 2 layers a tower, width 64.

    Args:
        vocabulary: ids of the tokenizer, ``<image>`` being the last.
        image_token_id: the id of ``<image>``.
    Returns: a `CoLLaVOConfig`.

    Raises:
        ValueError: ``<image>`` is not the last id, so that the output layer would produce it.
    """
    from collavo.config import CoLLaVOConfig

    if image_token_id != vocabulary - 1:
        raise ValueError(f"<image> must be the last of the {vocabulary} ids, it is {image_token_id}")
    return CoLLaVOConfig(
        text_config={
            "vocab_size": vocabulary - 1,
            "embedding_rows": vocabulary,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "plora_rank": 8,
            "plora_alpha": 8.0,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "patch_size": PATCH_SIZE,
            "image_size": IMAGE_SIZE,
        },
        crayon_width=32,
        image_token_id=image_token_id,
        image_size=IMAGE_SIZE,
    )


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Make a tiny CoLLaVO with random weights.")
    parser.add_argument("directory", type=Path, help="where the checkpoint goes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    args = parser.parse_args()
    try:
        made = make_tiny(args.directory, args.seed)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"tiny CoLLaVO (random weights, seed {args.seed}): {args.directory}{'' if made else ', as it was'}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
