"""Speed and work of the generation engine against plain `generate`, in one run.

    python -m tests.benchmark.engine [--pictures 4] [--questions 6] [--beams 3] [--width 256] [--device cpu]

Baseline: one batched ``model.generate(..., num_beams=K)`` call per picture, each row carrying its own picture, as the
released pipelines do it; the segmenter is left out of both. Prints questions per second, floating point operations
(`torch.utils.flop_counter`, which counts what ran) and peak memory on CUDA, each with its ratio, after checking that
the replies are the same. Random weights: the work does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from collavo.config import CoLLaVOConfig
from collavo.engine import Engine, Generation, Query
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT
from collavo.tokenizer import tiny_tokenizer
from modeling.segmenters.base import Picture
from modeling.segmenters.none import NoSegmenter

Run = Callable[[], list[str]]


def build(width: int, image_size: int, device: torch.device, *, layers: int = 8) -> Engine:
    """A model of some width and number of decoder layers, and an engine around it."""
    tokenizer = tiny_tokenizer()
    config = CoLLaVOConfig(
        text_config={
            "vocab_size": len(tokenizer) - 1,
            "embedding_rows": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "plora_rank": width // 16,
            "plora_alpha": width / 16,
        },
        vision_config={
            "hidden_size": width // 2,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": image_size,
        },
        crayon_width=width // 2,
        image_token_id=len(tokenizer) - 1,
        image_size=image_size,
    )
    torch.manual_seed(0)
    model = CoLLaVOForConditionalGeneration(config).eval().to(device)
    processor = CoLLaVOProcessor(tokenizer, image_size=image_size, patch_size=14)
    return Engine(model, processor, NoSegmenter(), CHAT)


def plain(engine: Engine, queries: Sequence[Query], generation: Generation) -> list[str]:
    """The baseline: every row pays for its own picture, every beam for its own prompt."""
    processor, model = engine.processor, engine.model
    prompts = [CHAT.prompt("", query.question) for query in queries]
    input_ids, attention_mask = processor.pad_left(processor.encode(prompts))
    pixels = processor.pixel_values(np.stack([query.picture.pixels for query in queries if query.picture is not None]))
    empty = torch.zeros(len(queries), processor.grid**2, dtype=torch.long, device=model.device)
    out = model.generate(
        input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        pixel_values=pixels.to(model.device),
        semantic=empty,
        numbering=empty,
        do_sample=False,
        num_beams=generation.num_beams,
        max_new_tokens=generation.max_new_tokens,
        eos_token_id=engine.end_ids,
        pad_token_id=model.config.text.pad_token_id,
    )
    return [engine.reply("", ids).text for ids in out[:, input_ids.shape[1] :].tolist()]


def measure(run: Run, device: torch.device) -> tuple[list[str], float, float, float]:
    """Replies, best seconds of three, floating point operations, peak MiB (0 on the CPU)."""
    run()
    seconds = []
    for _ in range(3):
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        replies = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0
    with FlopCounterMode(display=False) as counter:
        run()
    return replies, min(seconds), float(counter.get_total_flops()), peak


def row(name: str, ours: float, baseline: float, unit: str) -> str:
    """One line of the table."""
    return f"{name:<24}{ours:>12.4g}{baseline:>14.4g} {unit:<12}{ours / baseline if baseline else float('nan'):>8.2f}\n"


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Time the engine against plain generate.")
    parser.add_argument("--pictures", type=int, default=4, help="pictures (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=6, help="questions about each (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=3, help="beams (default: %(default)s)")
    parser.add_argument("--new-tokens", type=int, default=5, help="longest reply (default: %(default)s)")
    parser.add_argument("--width", type=int, default=256, help="decoder width (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=280, help="pixels a side (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    args = parser.parse_args()
    device = torch.device(args.device)
    engine = build(args.width, args.image_size, device)
    pixels = np.random.default_rng(0).integers(0, 256, (args.pictures, args.image_size, args.image_size, 3), np.uint8)
    batches = [
        [Query(Picture(p, str(n)), f"Is there a {n} {q} in the image?") for q in range(args.questions)]
        for n, p in enumerate(pixels)
    ]
    generation = Generation(num_beams=args.beams, max_new_tokens=args.new_tokens)

    def ours() -> list[str]:
        return [reply.text for batch in batches for reply in engine.answer(batch, generation)]

    def baseline() -> list[str]:
        with torch.inference_mode():
            return [text for batch in batches for text in plain(engine, batch, generation)]

    replies, seconds, flops, peak = measure(ours, device)
    plain_replies, plain_seconds, plain_flops, plain_peak = measure(baseline, device)
    count = len(replies)
    out = sys.stdout.write
    out(
        f"{args.pictures} pictures, {args.questions} questions each, {args.beams} beams, width {args.width}, {device}\n"
    )
    out(f"replies equal: {sum(a == b for a, b in zip(replies, plain_replies, strict=True))} of {count}\n")
    out(f"{'':<24}{'engine':>12}{'plain':>14} {'':<12}{'ratio':>8}\n")
    out(row("questions per second", count / seconds, count / plain_seconds, ""))
    out(row("work per question", flops / count / 1e9, plain_flops / count / 1e9, "GFLOP"))
    if device.type == "cuda":
        out(row("peak memory", peak, plain_peak, "MiB"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
