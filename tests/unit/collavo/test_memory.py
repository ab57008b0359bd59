"""What answering takes next to the weights: counted without storage, against what is really alive, and at full size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from assets.tiny.random_checkpoint import make_tiny
from collavo.checkpoint.examine import examine_checkpoint
from collavo.config import CoLLaVOConfig
from collavo.engine import Generation, Query
from collavo.load_collavo import NOT_QUANTISED, load_engine
from collavo.memory import AnsweringMemory, count_memory
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.options import LLMConfig
from modeling.image import DecodedImage
from modeling.live_bytes import LiveBytes
from modeling.quantize import weight_bytes
from modeling.segmenters.none import NoSegmenter

THREE_BEAMS = Generation(num_beams=3, max_new_tokens=5)


@pytest.fixture(scope="module")
def full_size() -> CoLLaVOForConditionalGeneration:
    with torch.device("meta"):
        return CoLLaVOForConditionalGeneration(CoLLaVOConfig())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("memory") / "tiny"
    make_tiny(directory, seed=0)
    return directory


def counted(model: CoLLaVOForConditionalGeneration, device: str, questions: int, tokens: int = 5) -> AnsweringMemory:
    generation = Generation(num_beams=3, max_new_tokens=tokens)
    return count_memory(
        model,
        dtype=torch.bfloat16,
        questions=questions,
        bits=4,
        kept=NOT_QUANTISED,
        device=device,
        generation=generation,
    )


@pytest.mark.slow
def test_full_size_in_4_bits_fits_9_gb(full_size: CoLLaVOForConditionalGeneration) -> None:
    """18 questions on an image, 3 beams; short replies and long ones."""
    weights = weight_bytes(full_size, 4, torch.bfloat16, NOT_QUANTISED)
    short = counted(full_size, "cuda", 18)
    long = counted(full_size, "cuda", 18, tokens=128)
    assert weights + short.total < weights + long.total < 9e9
    per_token = 2 * 32 * 8 * 128 * 2  # keys and values of all layers, in 2 bytes
    assert short.prefixes == (1225 + 193) * per_token
    assert short.block == 64 * (32 + 5) * per_token + 12 * 128 * per_token, "suffixes, and the copy that a graph reads"


@pytest.mark.slow
def test_memory_is_bounded_as_questions_grow(tiny: Path) -> None:
    """A block's worth of questions takes what five hundred do."""
    blank = examine_checkpoint(tiny).blank
    for device, block in (("cpu", 10), ("cuda", 21)):
        grown = [counted(blank, device, questions) for questions in (1, block, 100, 500)]
        assert grown[1] == grown[2] == grown[3]
        assert grown[0].prefixes == grown[3].prefixes


def test_more_questions_really_take_no_more(tiny: Path) -> None:
    engine = load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(tiny), NoSegmenter())
    image = DecodedImage(np.zeros((112, 112, 3), np.uint8), "0.png")
    generation, peaks = Generation(num_beams=3, max_new_tokens=2), []
    for number in (10, 40):
        engine.forget()
        queries = [Query(image, f"Is there a {n % 100}?") for n in range(number)]
        engine.answer(queries[:1], generation)  # maps and tokens are made once
        engine.forget()
        with LiveBytes() as live:
            engine.answer(queries, generation)
        peaks.append(live.peak)
    assert max(peaks) <= 1.02 * peaks[0]


def test_the_count_is_what_is_alive(tiny: Path) -> None:
    """Without storage and with it, up to attention's own scratch."""
    generation = THREE_BEAMS
    blank = examine_checkpoint(tiny).blank
    engine = load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(tiny), NoSegmenter())
    image = DecodedImage(np.zeros((112, 112, 3), np.uint8), "0.png")
    queries = [Query(image, f"Is there a {n}?") for n in range(5)]
    prompt = engine._prompt(0, queries[0])
    told = count_memory(
        blank,
        dtype=torch.float32,
        device="cpu",
        questions=5,
        generation=generation,
        text_tokens=prompt.prefix_length - 64,
    )
    weights = [*engine.model.parameters(), *engine.model.buffers()]
    with LiveBytes(weights) as live:
        engine.answer(queries, generation)
    prefix = next(iter(engine._prefixes.values()))
    assert told.prefixes == prefix.num_bytes
    assert 0.7 * live.peak < told.total < 1.4 * live.peak
