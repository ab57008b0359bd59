"""Speed and memory of step 2 against the plain Hugging Face recipe, in one run.

    python -m tests.benchmark.training [--updates 8] [--batch 8] [--rows 4] [--width 256] [--share 4] [--device cuda]

The plain recipe: the same model, records, PEFT adapters, optimizer and gradient checkpointing in the usual loop: rows
in random order, padded on the right, an image for every question, the crayon prompt's linears for every image token,
logits at every position. Ours runs `trainer.loop.TrainingLoop` over `trainer.data.loader.Schedule`, once as the paper
trains and once with several object-level questions an image (TRAIN.QUESTIONS). Images and maps are drawn before for all
of them, text and batches are prepared on the way. The first update of each is not counted. Random weights: the work
does not depend on them. Lengths of visual instructions are drawn log-normally, long-tailed as LLaVA's are.

Memory is the most that is alive in the dearest update beyond weights and optimizer state: what PyTorch allocates on
CUDA, and what its operations make on the CPU, counted storage by storage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from collavo.adapters import IMAGE_CIT, VL_CIT, Adapters
from collavo.config import CoLLaVOConfig
from collavo.crayon import CrayonPrompt, crayon_prompt
from collavo.model import CoLLaVOForConditionalGeneration, CrayonEmbedding
from collavo.processing import CoLLaVOProcessor
from collavo.tokenizer import tiny_tokenizer
from collavo.training_inputs import IGNORE_INDEX
from datasets.instruct.mixture import SourcePart
from datasets.instruct.order import adapter_of
from datasets.instruct.types import Sample, Turn, share_images
from datasets.types import ImageFile
from modeling.image import DecodedImage
from modeling.live_bytes import LiveBytes
from modeling.segmenters.base import PanopticMap, Segment
from trainer.config import LoopConfig
from trainer.data.batches import Batch, Example, collate
from trainer.data.loader import Batches, Schedule
from trainer.data.samples import Preparation, ShownImage
from trainer.loop import TrainingLoop, Update
from trainer.memory import all_tensors
from trainer.parallel.placement import ReplicatedPlacement
from trainer.parallel.trainable import adapter_groups, train_only, trainable_parameters

TEXT, SPREAD = 0.15, 0.9
"""Median length of a conversation's text, as a share of the image tokens, and standard deviation of its logarithm."""
TEXT_ONLY = 0.06
"""Share of conversations without an image, as in LLaVA-Instruct-665K (40,688 of 665,298)."""
KINDS = {VL_CIT: "visual instructions", IMAGE_CIT: "object-level questions"}
SHARE = 0.5
"""Share of the updates that are object-level (Image-CIT)."""
WORDS = ("the", "red", "image", "left", "of", "a", "person", "with", "dog", "and", "two", "small", "cups", "behind")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained.

    Attributes:
        width: of the decoder.
        layers: of the decoder.
        image_size: pixels a side.
        dropout: before the low-rank pairs of image tokens and crayon prompt.
        rank: of both LoRA adapters.
    """

    width: int
    layers: int
    image_size: int
    dropout: float
    rank: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """How it is trained.

    Attributes:
        updates: that are timed.
        batch: samples of an update.
        rows: that run through the model at a time.
        questions: about each image.
        device: where.
    """

    updates: int
    batch: int
    rows: int
    questions: int
    device: torch.device


@dataclass(kw_only=True)
class Result:
    """What was measured, by kind of update: conversations and their tokens (each as if alone), seconds; and bytes."""

    conversations: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    peak: int = 0

    def add(self, records: Records, kind: str, indices: Iterable[int], seconds: float) -> None:
        """Count an update."""
        for index in indices:
            conversations, tokens = records.alone(index)
            self.conversations[kind] += conversations
            self.tokens[kind] += tokens
        self.seconds[kind] += seconds


def build(size: Size, device: torch.device) -> tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor]:
    """A model in the proportions of CoLLaVO-7B (vocabulary and feed-forward width against width), and its processor."""
    tokenizer = tiny_tokenizer()
    vocabulary = max(len(tokenizer), round(92544 / 4096 * size.width))
    config = CoLLaVOConfig(
        text_config={
            "vocab_size": vocabulary,
            "embedding_rows": vocabulary + 1,
            "hidden_size": size.width,
            "intermediate_size": 7 * size.width // 2,
            "num_hidden_layers": size.layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "plora_rank": max(4, size.width // 16),
            "plora_alpha": max(4.0, size.width / 16),
            "plora_dropout": size.dropout,
        },
        vision_config={
            "hidden_size": size.width // 4,
            "intermediate_size": size.width,
            "num_hidden_layers": max(2, size.layers // 2),
            "num_attention_heads": 4,
            "image_size": size.image_size,
        },
        crayon_width=size.width // 4,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_size=size.image_size,
    )
    torch.manual_seed(0)
    model = CoLLaVOForConditionalGeneration(config).to(device)
    return model, CoLLaVOProcessor(tokenizer, image_size=size.image_size, patch_size=config.vision.patch_size)


class Records:
    """Conversations with drawn images and maps; see `trainer.data.samples.SampleSource`.

    Args:
        samples: in any order.
        preparation: see there.
    """

    def __init__(self, samples: Sequence[Sample], preparation: Preparation) -> None:
        self.samples, self._preparation = samples, preparation
        self.parts = [SourcePart(name="drawn", size=len(samples))]
        self._grid = preparation.processor.grid
        self._prompts = [_prompt(self._grid, seed) for seed in range(8)]
        side = preparation.processor.image_size
        self._pixels = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
        self.lengths = np.array([self._length(sample) for sample in samples], np.int64)

    def _length(self, sample: Sample) -> int:
        words = sum(len(turn.question.split()) + len(turn.answer.split()) for turn in sample.turns)
        return words + (self._grid**2 if sample.image is not None else 0)

    def example(self, index: int, step: int) -> Example:
        """See `SampleSource.example`."""
        sample = self.samples[index]
        if sample.image is None:
            return self._preparation.example(sample, None)
        return self._preparation.example(sample, self._shown(index, sample.image.name))

    def _shown(self, index: int, name: str) -> ShownImage:
        prompt = self._prompts[index % 8]
        return ShownImage(
            decoded=DecodedImage(self._pixels[index % 8], name), true=prompt, shown=prompt, map_seconds=0.0
        )

    def alone(self, index: int) -> tuple[int, int]:
        """Conversations of a sample, and their tokens as if each stood alone."""
        sample = self.samples[index]
        ones = (
            [replace(sample, turns=(t,), independent=False) for t in sample.turns] if sample.independent else [sample]
        )
        shown = None if sample.image is None else self._shown(index, sample.image.name)
        rows = [self._preparation.example(one, shown).input_ids for one in ones]
        return len(ones), sum(map(len, rows)) + len(ones) * (self._grid**2 - 1) * (shown is not None)


def _prompt(grid: int, seed: int) -> CrayonPrompt:
    """An image of 3 to 9 objects in rectangles."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((grid, grid), np.int32)
    for number in range(1, int(rng.integers(4, 11))):
        top, left = rng.integers(0, grid - 1, 2)
        ids[top : top + grid // 2, left : left + grid // 3] = number
    shown = sorted({int(i) for i in np.unique(ids)} - {0})
    return crayon_prompt(
        PanopticMap(ids, tuple(Segment(id=i, category_id=int(rng.integers(0, 80)), score=1.0) for i in shown)), grid
    )


def draw(num: int, kind: str, image_tokens: int, questions: int) -> list[Sample]:
    """Conversations of one turn: visual ones with long-tailed lengths, or short object-level questions.

    Args:
        num: how many.
        kind: `VL_CIT` or `IMAGE_CIT`.
        image_tokens: of an image; lengths are relative to them.
        questions: about each image.
    """
    rng, visual = np.random.default_rng([num, kind == VL_CIT]), kind == VL_CIT
    samples = []
    for number in range(num):
        words = max(2, round(float(rng.lognormal(np.log(TEXT * image_tokens), SPREAD)))) if visual else 3
        asked, told = (" ".join(rng.choice(WORDS, n)) for n in (max(4, words // 4), min(words, 4 * image_tokens)))
        name = f"{number // questions}.jpg"
        image = None if visual and rng.random() < TEXT_ONLY else ImageFile(Path(name), name)
        turn, with_objects = Turn(question=asked, answer=told), visual and image is not None
        name = f"{kind}/{number}"
        samples.append(Sample(id=name, image=image, turns=(turn,), source=kind, with_objects=with_objects))
    return samples


@dataclass(kw_only=True)
class Trained:
    """A model with its adapters, ready to learn."""

    model: CoLLaVOForConditionalGeneration
    processor: CoLLaVOProcessor
    adapters: Mapping[str, Sequence[dict[str, nn.Parameter]]]
    optimizer: torch.optim.Optimizer


def set_up(size: Size, device: torch.device) -> Trained:
    """Model, adapters and optimizer: the same for ours and the plain recipe."""
    model, processor = build(size, device)
    lora = Adapters(model, (IMAGE_CIT, VL_CIT), rank=size.rank, alpha=size.rank)
    adapters = adapter_groups(model, lora, "both")
    model.requires_grad_(False)
    optimizer = torch.optim.AdamW(trainable_parameters(adapters).values(), lr=1e-5, weight_decay=0.0)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train().vision_tower.eval()
    return Trained(model=model, processor=processor, adapters=adapters, optimizer=optimizer)


class PlainCrayon(CrayonEmbedding):
    """The crayon prompt as one writes it down first: every token looks up and projects its own vector."""

    def forward(self, semantic: Tensor, numbering: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of all tokens (N * P, D), and their own numbers."""
        vectors = self.projector((self.semantic(semantic) + self.numbering(numbering)).flatten(0, 1))
        return vectors, torch.arange(len(vectors), device=vectors.device).view_as(semantic)


def padded_right(examples: Sequence[Example], processor: CoLLaVOProcessor) -> Batch:
    """The usual collator: image tokens written out, rows filled on the right."""
    image, num = processor.tokenizer.convert_tokens_to_ids("<image>"), processor.grid**2
    rows = []
    for example in examples:
        copies = [num if token == image else 1 for token in example.input_ids]
        rows.append([np.repeat(np.array(values), copies) for values in (example.input_ids, example.labels)])
    longest = max(len(ids) for ids, _ in rows)
    laid = collate(examples, processor)

    def filled(values: Iterable[npt.NDArray[np.int64]], fill: int) -> Tensor:
        return torch.from_numpy(np.stack([np.pad(v, (0, longest - len(v)), constant_values=fill) for v in values]))

    return replace(
        laid,
        input_ids=filled((ids for ids, _ in rows), 0),
        labels=filled((labels for _, labels in rows), IGNORE_INDEX),
        attention_mask=filled((np.ones(len(ids), np.int64) for ids, _ in rows), 0),
        position_ids=None,
    )


def sources(work: Work, preparation: Preparation, share: int) -> dict[str, Records]:
    """The records of both adapters: those of one epoch, where an image has one question."""
    steps: Counter[str] = Counter(adapter_of(preparation.train.SEED, step, SHARE) for step in range(work.updates + 1))
    found = {}
    for kind, per_image in ((VL_CIT, 1), (IMAGE_CIT, work.questions)):
        num = work.batch * max(1, steps[kind]) * per_image
        drawn = draw(num, kind, preparation.processor.grid**2, per_image)
        found[kind] = Records(share_images(drawn, share if per_image > 1 else 1), preparation)
    return found


def ours(size: Size, work: Work, share: int) -> Result:
    """Train by the trainer's own loop and schedule."""
    held = set_up(size, work.device)
    train = LoopConfig(
        BATCH_SIZE_TOTAL=work.batch,
        BATCH_SIZE=work.rows,
        MAX_LENGTH=8192,
        QUESTIONS=share,
        IMAGE_SHARE=SHARE,
        WORKERS=1,
        LR=1e-5,
        LR_END=1e-6,
        WARMUP=0.0,
    )
    preparation = Preparation(processor=held.processor, train=train, place=held.model.place)
    data = sources(work, preparation, share)
    schedule = Schedule(Batches(data, preparation))
    accelerator = Accelerator(cpu=work.device.type == "cpu")
    placement = ReplicatedPlacement(accelerator, held.model, held.adapters, lr=1e-5, weight_decay=0.0)
    held.optimizer = placement.optimizer
    loop = TrainingLoop(accelerator, placement, work.device, train, steps=work.updates + 1)
    result, begun = Result(), [0.0]

    def done(update: Update) -> None:
        now = _clock(work.device)
        if update.step > 1:
            drawn = schedule.samples(update.step - 1).tolist()
            result.add(data[update.adapter], update.adapter, drawn, now - begun[0])
        begun[0] = _clock(work.device)

    loop.run(schedule, 0, done)
    # the dearest update again, for its memory
    dearest = max(range(1, work.updates + 1), key=lambda s: max(data[schedule.adapter(s)].lengths[schedule.samples(s)]))
    again = TrainingLoop(accelerator, placement, work.device, train, steps=dearest + 1)
    result.peak = peak(held, work.device, lambda: again.run(schedule, dearest, lambda update: None))
    return result


def plain(size: Size, work: Work) -> Result:
    """Train by the usual loop."""
    held = set_up(size, work.device)
    model, processor = held.model, held.processor
    model.crayon.__class__ = PlainCrayon  # same weights under the same names
    preparation = Preparation(processor=processor, train=LoopConfig(MAX_LENGTH=8192))
    data = sources(work, preparation, 1)
    order = {kind: np.random.default_rng(1).permutation(len(records.samples)) for kind, records in data.items()}
    places = dict.fromkeys(data, 0)
    chosen: list[tuple[str, list[int]]] = []
    for step in range(work.updates + 1):  # the same draw of adapters, batches in random order
        kind = adapter_of(preparation.train.SEED, step, SHARE)
        chosen.append((kind, [int(i) for i in order[kind][places[kind] : places[kind] + work.batch]]))
        places[kind] += work.batch

    def update(kind: str, indices: Sequence[int]) -> None:
        train_only(held.adapters[kind], model)
        parts = [indices[i : i + work.rows] for i in range(0, len(indices), work.rows)]
        for part in parts:
            batch = padded_right([data[kind].example(i, 0) for i in part], processor).to(work.device)
            (model(**batch.inputs(), use_cache=False).loss / len(parts)).backward()
        nn.utils.clip_grad_norm_([p for group in held.adapters[kind] for p in group.values()], 1.0)
        held.optimizer.step()
        held.optimizer.zero_grad(set_to_none=True)

    result = Result()
    update(*chosen[0])
    for adapter, indices in chosen[1:]:
        start = _clock(work.device)
        update(adapter, indices)
        result.add(data[adapter], adapter, indices, _clock(work.device) - start)
    dearest = max(chosen[1:], key=lambda one: max(data[one[0]].lengths[one[1]]))
    result.peak = peak(held, work.device, lambda: update(*dearest))
    return result


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(held: Trained, device: torch.device, run: Callable[[], object]) -> int:
    """Most bytes alive in a run beyond weights and optimizer state."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    state = [v for s in held.optimizer.state.values() for v in s.values()]
    with LiveBytes([*all_tensors(held.model), *state]) as live:
        run()
    return live.peak


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Time step 2 against the plain Hugging Face recipe.")
    for name, default, meaning in (
        ("updates", 8, "timed updates"),
        ("batch", 8, "samples of an update"),
        ("rows", 4, "samples that run through the model at a time"),
        ("share", 4, "questions about each image; the last column shares the image among them"),
        ("width", 256, "of the decoder"),
        ("layers", 4, "of the decoder"),
        ("image-size", 196, "pixels a side"),
        ("rank", 16, "of both LoRA adapters"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.05, help="before the low-rank pairs (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    args = parser.parse_args()
    size = Size(width=args.width, layers=args.layers, image_size=args.image_size, dropout=args.dropout, rank=args.rank)
    work = Work(
        updates=args.updates, batch=args.batch, rows=args.rows, questions=args.share, device=torch.device(args.device)
    )
    results = [plain(size, work), ours(size, work, 1), ours(size, work, args.share)]
    out = sys.stdout.write
    out(
        f"{args.updates} updates of {args.batch} samples, {args.rows} at a time, width {args.width}, "
        f"{args.layers} layers, {args.image_size}x{args.image_size} pixels, {args.device}\n"
    )
    out(f"{'':<52}{'plain':>10}{'ours':>10}{'ratio':>8}{f'ours, {args.share} an image':>22}{'ratio':>8}\n")
    rates = [
        (f"{what}: {unit} per second", [getattr(r, unit)[kind] / r.seconds[kind] for r in results])
        for kind, what in KINDS.items()
        for unit in ("conversations", "tokens")
    ]
    for name, values in (*rates, ("peak memory, MiB", [r.peak / 2**20 for r in results])):
        base, one, shared = values
        out(f"{name:<52}{base:>10.4g}{one:>10.4g}{one / base:>8.2f}{shared:>22.4g}{shared / base:>8.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
