"""What a decoding step costs and where it runs, without a GPU: operators counted, and a second device pretended."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from collavo.model import CoLLaVOForConditionalGeneration
from collavo.search import Generation, start_search
from modeling.internlm2 import CACHE
from modeling.shared_prefix import Prefix, SharedPrefixCache
from tests.benchmark.engine import Geometry, build

ELSEWHERE = "lazy:0"
"""A device that every build of PyTorch knows and that is not the CPU; `cuda` needs its libraries to be sliced."""

SMALLEST = Geometry(64, 8, 8, 2, 192, 4, 64, 2, 56)
LAYERS, ROOM, BEAMS, ROWS = 32, 5, 3, 16


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that make or change a tensor; views, and conversions that convert nothing, do not."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor) and t.numel()}
        out = func(*args, **(kwargs or {}))
        is_view = isinstance(out, Tensor) and out.numel() and out.untyped_storage().data_ptr() in before
        views = isinstance(out, (tuple, list)) and "split" in func.__name__
        changes = func.__name__.split(".")[0].endswith("_") or func.__name__.startswith("__i")
        if not (is_view or views) or changes:
            self.counts[func.__name__] += 1
        return out


def fake_elsewhere(model: torch.nn.Module) -> None:
    """Give every parameter and buffer fake storage on a device that is not there."""
    for module in model.modules():
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=torch.bfloat16, device=ELSEWHERE)
                    store[name] = torch.nn.Parameter(fake, requires_grad=False) if store is module._parameters else fake


def step_of(model: CoLLaVOForConditionalGeneration, prefix: Prefix) -> Callable[[int], Tensor]:
    """One beam search step of a block, as the engine takes it, by its number."""
    cache = SharedPrefixCache([prefix] * ROOM, num_rows=ROWS, num_beams=BEAMS, prompt_slots=32, new_slots=5)
    for question in range(ROOM):
        cache.read_prompt(question, 7)
    search = start_search(Generation(num_beams=BEAMS, max_new_tokens=6), list(range(ROOM)), [1, 2], model.device)
    first = torch.arange(ROOM, device=model.device)[:, None] * BEAMS
    vocabulary = model.config.text.vocab_size
    token_rows = torch.zeros(ROWS, dtype=torch.long, device=model.device)
    parent_rows = torch.arange(ROWS, device=model.device)
    state = search.advance(torch.randn(ROOM, 1, vocabulary).to(model.device))

    def step(number: int) -> Tensor:
        nonlocal state
        tokens, parents = state
        token_rows[: ROOM * BEAMS] = tokens.flatten()
        parent_rows[: ROOM * BEAMS] = (parents + first).flatten()
        cache.reorder(parent_rows, number)
        cache.decode(number)
        embeds = model.get_input_embeddings()(token_rows)[:, None]
        positions = torch.arange(1, device=model.device).expand(ROWS, -1)
        out = model(inputs_embeds=embeds, position_ids=positions, use_cache=True, logits_to_keep=1, **{CACHE: cache})
        state = search.advance(out.logits[: ROOM * BEAMS, -1].float().view(ROOM, BEAMS, -1))
        return state[0]

    return step


def test_a_step_takes_at_most_900_operators_at_32_layers() -> None:
    engine = build(replace(SMALLEST, layers=LAYERS), torch.device("cpu"))
    text = engine.model.config.text
    states = torch.randn(1, text.num_key_value_heads, 20, text.head_dim)
    with torch.inference_mode():
        step = step_of(engine.model, Prefix(((states, states),) * LAYERS))
        step(0)
        with OperatorCounter() as counter:
            step(1)
    assert counter.counts.total() <= 900, counter.counts.most_common()
    assert counter.counts["linear.default"] == 5 * LAYERS + 1, "every linear once, for all rows of the block"


@pytest.mark.slow
@pytest.mark.parametrize("crayon", [True, False])
def test_nothing_is_left_on_the_cpu(crayon: bool) -> None:
    """Prefix, prompt's end and step on a pretended GPU: an operator that mixed devices, or read back, would raise."""
    model = build(SMALLEST, torch.device("cpu")).model.to(torch.bfloat16)
    model.set_attn_implementation("eager")  # PyTorch's own backends ask for the real device
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        fake_elsewhere(model)
        features = model.encode_images(torch.empty(1, 3, 56, 56, dtype=torch.bfloat16, device=ELSEWHERE))
        indices = np.arange(16).reshape(4, 4) if crayon else None
        embeds, image = model.embed_prompt([1, model.config.image_token_id, 5], features, indices, indices)
        assert embeds.shape == (1, 18, 64)
        positions = torch.arange(18, device=ELSEWHERE)[None]
        out = model(inputs_embeds=embeds, position_ids=positions, image=image, use_cache=True, logits_to_keep=1)
        layers = tuple((layer.keys, layer.values) for layer in out[CACHE].layers)
        assert {t.device.type for pair in layers for t in pair} == {"lazy"}
        step = step_of(model, Prefix(layers))
        tokens = [step(number) for number in range(3)]
        assert {t.device.type for t in tokens} == {"lazy"}
