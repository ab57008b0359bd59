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

from collavo import decoding
from collavo.decoding import WARM_UP, BlockDecoder
from collavo.engine import Query
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.search import Generation
from modeling.image import DecodedImage
from modeling.internlm2 import CACHE
from modeling.shared_prefix import Prefix, SharedPrefixCache, StaticPrefixCache
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


def decoder_of(
    model: CoLLaVOForConditionalGeneration, prefix: Prefix, *, static: bool, images: int = 2
) -> BlockDecoder:
    """A block's decoder after the first token, as the engine makes it; questions on one image or two."""
    prefixes = [prefix] * 5 if images == 1 else [prefix] * 3 + [Prefix(prefix.layers)] * 2
    sizes = {"num_rows": ROWS, "num_beams": BEAMS, "prompt_slots": 32, "new_slots": 5}
    if static:
        cache: SharedPrefixCache = StaticPrefixCache(
            prefix, num_prefixes=2, questions_each=2, prefix_slots=prefix.length + 7, **sizes
        )
        prefixes = prefixes[2:]
        cache.restart(prefixes)  # type: ignore[attr-defined]
    else:
        cache = SharedPrefixCache(prefixes, **sizes)
    for question in range(len(prefixes)):
        cache.read_prompt(question, 7)
    decoder = BlockDecoder(model, cache, Generation(num_beams=BEAMS, max_new_tokens=6), [1, 2])
    logits = torch.randn(len(prefixes), 1, model.config.text.vocab_size).to(model.device)
    decoder.start(logits, [prefix.length + 7] * len(prefixes), range(len(prefixes)))
    return decoder


def tensors_of(decoder: BlockDecoder) -> dict[str, Tensor]:
    """All tensors that a decoder keeps, by name."""
    owners = {"decoder": decoder, "search": decoder.search, "cache": decoder.cache}
    kept = {f"{owner}.{name}": v for owner, o in owners.items() for name, v in vars(o).items() if isinstance(v, Tensor)}
    assert decoder.cache._buffers is not None
    out, lse = decoder.cache._buffers
    return {**kept, "cache.out": out, "cache.lse": lse}


def test_a_step_takes_at_most_900_operators_at_32_layers() -> None:
    engine = build(replace(SMALLEST, layers=LAYERS), torch.device("cpu"))
    text = engine.model.config.text
    states = torch.randn(1, text.num_key_value_heads, 20, text.head_dim)
    with torch.inference_mode():
        decoder = decoder_of(engine.model, Prefix(((states, states),) * LAYERS), static=False, images=1)
        decoder.step(0)
        with OperatorCounter() as counter:
            decoder.step(1)
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
        for static in (False, True):
            decoder = decoder_of(model, Prefix(layers), static=static)
            for number in range(3):
                decoder.step(number)
            assert {t.device.type for t in tensors_of(decoder).values()} == {"lazy"}


@pytest.mark.slow
def test_a_training_step_leaves_nothing_on_the_cpu() -> None:
    """Forward, loss, backward and an update on a pretended GPU; what stands where was found on the host."""
    model = build(SMALLEST, torch.device("cpu")).model.to(torch.bfloat16).train()
    model.set_attn_implementation("eager")
    token = model.config.image_token_id
    ids = torch.tensor([[1, token, 5, 6, 7], [2, 2, 1, 8, 9]])
    mask, labels = (ids != 2).long(), torch.tensor([[-100, -100, -100, 6, 7], [-100, -100, -100, 8, 9]])
    crayon = torch.arange(16)[None] % 5
    placed = model.place(ids, mask, labels, crayon, crayon, (1, 16))
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake_elsewhere(model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        pixels = torch.empty(1, 3, 56, 56, dtype=torch.bfloat16, device=ELSEWHERE)
        out = model(placed=placed, pixel_values=pixels, num_items_in_batch=4, use_cache=False)
        assert out.logits.shape[0] == 4
        out.loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert len(gradients) > 50
        assert {g.device.type for g in gradients} == {out.loss.device.type} == {"lazy"}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.grad is not None], lr=1e-3, foreach=False)
        optimizer.step()
        moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
        assert {t.device.type for t in moments} == {"lazy"}


def test_places_found_on_the_host_give_the_same_numbers() -> None:
    """Loss and gradients, to the bit, of inputs that are looked at on the host and of those that are on the device."""
    model = build(SMALLEST, torch.device("cpu")).model.eval()
    token = model.config.image_token_id
    ids = torch.tensor([[1, token, 5, 6, 7], [2, 2, 1, 8, 9], [2, 1, token, 4, 3]])
    mask, labels = (ids != 2).long(), torch.where(ids > 4, ids, -100)
    labels[ids == token] = -100
    crayon = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (2, 16)))
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels, "semantic": crayon, "numbering": crayon}
    pixels = torch.randn(2, 3, 56, 56)
    found = []
    for given in (inputs, {"placed": model.place(ids, mask, labels, crayon, crayon, (2, 16))}):
        model.zero_grad()
        out = model(**given, pixel_values=pixels, num_items_in_batch=5, use_cache=False)
        out.loss.backward()
        found.append([out.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 50
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_image_tokens_that_do_not_fit_are_refused_on_the_host() -> None:
    model = build(SMALLEST, torch.device("cpu")).model
    ids = torch.tensor([[1, model.config.image_token_id, model.config.image_token_id, 5]])
    with pytest.raises(ValueError, match="1 images of 16 tokens do not fit 2 image tokens"):
        model.place(ids, None, None, None, None, (1, 16))


def test_a_step_leaves_all_tensors_where_they_are() -> None:
    """What a CUDA graph reads and writes lies at fixed addresses and has fixed shapes."""
    engine = build(SMALLEST, torch.device("cpu"))
    text = engine.model.config.text
    states = torch.randn(1, text.num_key_value_heads, 20, text.head_dim)
    with torch.inference_mode():
        decoder = decoder_of(engine.model, Prefix(((states, states),) * text.num_hidden_layers), static=True)
        decoder.step(0)  # makes room for the attention's result
        before = {name: (t.data_ptr(), t.shape) for name, t in tensors_of(decoder).items()}
        contents = {name: t.clone() for name, t in tensors_of(decoder).items()}
        decoder.step(1)
        decoder.step(2)
    after = tensors_of(decoder)
    assert {name: (t.data_ptr(), t.shape) for name, t in after.items()} == before
    changed = {name for name, t in after.items() if not torch.equal(t, contents[name])}
    assert {"cache.suffix", "cache.mask", "cache._place", "decoder._positions", "search._step"} <= changed


class Graphs:
    """Stands for CUDA's graphs: replays a step by taking it, and counts the operators outside."""

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.counter = OperatorCounter()
        self.outside: list[int] = []
        self._seen = 0

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Take the steps before a capture; those of the capture itself would compute nothing."""
        self.captures += 1
        for _ in range(WARM_UP):
            step()

        def replay() -> None:
            self.outside.append(self.counter.counts.total() - self._seen)
            self.replays += 1
            step()
            self._seen = self.counter.counts.total()

        return replay


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_blocks_of_a_shape_share_a_graph_and_replies_are_those_of_the_loop(
    beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(SMALLEST, torch.device("cpu"))
    rng = np.random.default_rng(0)
    images = [DecodedImage(rng.integers(0, 256, (56, 56, 3)).astype(np.uint8), f"{n}.png") for n in range(6)]
    asked = [Query(image, f"Is there a {n}?") for image in images[:2] for n in range(4)]
    asked += [Query(image, f"Is it {n}?") for n, image in enumerate(images[2:])]
    generation = Generation(num_beams=beams, max_new_tokens=9)
    eager = engine.answer(asked, generation)
    graphs = Graphs()
    monkeypatch.setattr(decoding, "capture_cuda_graph", graphs.capture)
    engine.forget()
    engine._graphs = decoding.GraphedBlocks(engine.model, engine.end_ids)
    with graphs.counter:
        replayed = engine.answer(asked, generation)
        again = engine.answer(asked, generation)
    assert [r.text for r in replayed] == [r.text for r in eager] == [r.text for r in again]
    for one, other in zip(replayed, eager, strict=True):
        assert one.margin == pytest.approx(other.margin, abs=1e-4)
    assert [r.margin for r in again] == [r.margin for r in replayed], "nothing of an earlier block is left"
    assert graphs.replays > 0
    assert graphs.captures <= 3, "blocks of a shape share a graph"
    within_a_block = [n for n in graphs.outside if n <= 40]
    assert len(within_a_block) >= graphs.replays * 3 // 4, graphs.outside
    assert graphs.captures < graphs.replays


def test_where_no_graph_can_be_captured_steps_run_eagerly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> Callable[[], None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    engine = build(SMALLEST, torch.device("cpu"))
    asked = [Query(None, "Hello"), Query(None, "What is it?")]
    generation = Generation(num_beams=3, max_new_tokens=6)
    eager = engine.answer(asked, generation)
    monkeypatch.setattr(decoding, "capture_cuda_graph", fails)
    engine._graphs = decoding.GraphedBlocks(engine.model, engine.end_ids)
    assert engine.answer(asked, generation) == eager
    assert engine.answer(asked, generation) == eager
    said = [record.message for record in caplog.records if "CUDA graph" in record.message]
    assert said == [
        "no CUDA graph of a decoding step (CUDA error: operation not permitted when stream is capturing); steps run "
        "one operator at a time"
    ]
