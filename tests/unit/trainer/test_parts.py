"""Parts of training: the learning rate, corrupted maps, the loss, what an update trains."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from assets.tiny.random_checkpoint import make_tiny
from collavo.load_collavo import load_model
from collavo.options import LLMConfig
from configs.load import REPOSITORY
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.xdecoder.training_options import XDecoderTrainingConfig
from trainer.config import (
    ConversationSource,
    DataConfig,
    LoopConfig,
    LoRAConfig,
    PanopticSource,
    with_cache,
)
from trainer.data.maps import corrupt_map
from trainer.schedule import learning_rate


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_the_rate_rises_then_falls_to_the_lowest(steps: int, warmup: float) -> None:
    rates = [learning_rate(s, steps, highest=1.0, lowest=0.1, warmup=warmup) for s in range(steps)]
    top = max(range(steps), key=lambda s: rates[s])
    assert all(a <= b + 1e-12 for a, b in zip(rates[:top], rates[1 : top + 1], strict=True))
    assert all(a >= b - 1e-12 for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert 0 < min(rates) <= max(rates) <= 1.0
    rise = math.ceil(warmup * steps)
    if steps - rise > 1:
        assert rates[-1] == pytest.approx(0.1)


def panoptic(num: int) -> PanopticMap:
    ids = np.repeat(np.arange(1, num + 1, dtype=np.int32), 2).reshape(num, 2)
    return PanopticMap(ids, tuple(Segment(id=i, category_id=i % 7, score=1.0) for i in range(1, num + 1)))


def test_corruption_drops_and_renames_at_its_rate() -> None:
    rng = np.random.default_rng(0)
    true = panoptic(5000)
    corrupted = corrupt_map(true, 0.1, range(50, 60), rng)
    kept = {segment.id: segment.category_id for segment in corrupted.segments}
    assert len(kept) / 5000 == pytest.approx(0.9, abs=0.02)
    assert sum(category >= 50 for category in kept.values()) / 5000 == pytest.approx(0.1, abs=0.02)
    assert set(np.unique(corrupted.id_map)) == {0, *kept}
    assert corrupt_map(true, 0.0, (), rng) is true


def test_the_loss_is_the_sum_over_labelled_tokens_by_a_given_number(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny", seed=0)
    model = load_model(LLMConfig(BITS=32, DTYPE="fp32"), tmp_path / "tiny", torch.device("cpu"))
    ids = torch.randint(5, 300, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < 0.5, ids, -100)
    whole = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    expected = F.nll_loss(whole.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum") / 17
    output = model(input_ids=ids, labels=labels, num_items_in_batch=17)
    assert float(output.loss) == pytest.approx(float(expected), rel=1e-5)
    assert len(output.logits) == int((labels[:, 1:] != -100).sum())
    none = model(input_ids=ids, labels=torch.full_like(ids, -100), num_items_in_batch=17).loss
    assert float(none) == 0.0 and none.requires_grad


@pytest.mark.parametrize(
    "cls", [LoopConfig, DataConfig, LoRAConfig, PanopticSource, ConversationSource, XDecoderTrainingConfig]
)
def test_every_key_is_documented_and_read(cls: type) -> None:
    readers = [*(REPOSITORY / "trainer").rglob("*.py"), *(REPOSITORY / "modeling" / "segmenters").rglob("*.py")]
    files = [file for file in readers if file != REPOSITORY / "trainer" / "config.py"]
    code = "".join(file.read_text(encoding="utf-8") for file in files) + inspect.getsource(with_cache)
    for field in fields(cls):
        assert f"{field.name}:" in (cls.__doc__ or ""), field.name
        assert f".{field.name}" in code or f'"{field.name}"' in code, field.name


def test_queries_that_do_not_act_change_nothing(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny", seed=0)
    model = load_model(LLMConfig(BITS=32, DTYPE="fp32"), tmp_path / "tiny", torch.device("cpu"))
    tokens = model.config.num_image_tokens
    ids = torch.tensor([[1, model.config.image_token_id, 5, 6]])
    pixels, semantic = torch.randn(1, 3, 112, 112), torch.randint(1, 134, (1, tokens))
    numbers = [torch.full((1, tokens), n) for n in (1, 2)]

    def logits(queries: str, numbering: torch.Tensor, **more: torch.Tensor | None) -> torch.Tensor:
        model.config.crayon_queries = queries
        inputs = {"pixel_values": pixels, "semantic": semantic, **more}
        return model(input_ids=ids, numbering=numbering, **inputs).logits

    assert not torch.equal(logits("both", numbers[0]), logits("both", numbers[1]))
    assert torch.equal(logits("semantic", numbers[0]), logits("semantic", numbers[1]))
    assert torch.equal(logits("semantic", numbers[0]), logits("both", torch.zeros_like(numbers[0])))
    without = model(input_ids=ids, pixel_values=pixels).logits
    assert torch.equal(logits("none", numbers[0]), without)
    assert not torch.equal(logits("semantic", numbers[0]), without)
