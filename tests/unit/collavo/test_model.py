"""The joined model: merging, batches of any composition, errors, saving."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from assets.tiny.random_checkpoint import tiny_config
from collavo.model import CoLLaVOForConditionalGeneration

VOCABULARY, IMAGE = 61, 60


@pytest.fixture(scope="module")
def model() -> CoLLaVOForConditionalGeneration:
    torch.manual_seed(0)
    model = CoLLaVOForConditionalGeneration(tiny_config(VOCABULARY, IMAGE)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def row(length: int, *, image: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """One row of inputs, with or without an image."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50, (1, length), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if image:
        ids[0, 2] = IMAGE
        inputs["pixel_values"] = torch.randn(1, 3, 112, 112, generator=generator)
        inputs["semantic"] = torch.randint(0, 134, (1, 64), generator=generator)
        inputs["numbering"] = torch.randint(0, 21, (1, 64), generator=generator)
    return inputs


def batch(*rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows padded on the left, images stacked."""
    length = max(r["input_ids"].shape[1] for r in rows)
    joined = {
        name: torch.cat([torch.nn.functional.pad(r[name], (length - r[name].shape[1], 0), value=fill) for r in rows])
        for name, fill in (("input_ids", 2), ("attention_mask", 0))
    }
    for name in ("pixel_values", "semantic", "numbering"):
        parts = [r[name] for r in rows if name in r]
        if parts:
            joined[name] = torch.cat(parts)
    return joined


@torch.no_grad()
@pytest.mark.parametrize("images", [(True, False, True), (False, False), (False, True), (True,)])
def test_a_row_gives_the_same_logits_alone_and_in_any_batch(
    model: CoLLaVOForConditionalGeneration, images: tuple[bool, ...]
) -> None:
    rows = [row(6 + 3 * i, image=p, seed=i) for i, p in enumerate(images)]
    together = model(**batch(*rows)).logits
    for ours, alone in zip(together, rows, strict=True):
        expected = model(**alone).logits[0]
        torch.testing.assert_close(ours[-len(expected) :], expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_mixed_batches_generate_what_each_row_generates_alone(
    model: CoLLaVOForConditionalGeneration, beams: int
) -> None:
    rows = [row(5, image=True, seed=1), row(9, image=False, seed=2), row(7, image=True, seed=3)]
    settings: dict[str, Any] = {"num_beams": beams, "max_new_tokens": 6, "do_sample": False, "eos_token_id": 2}
    together = model.generate(**batch(*rows), **settings)[:, 9:]
    for ours, alone in zip(together.tolist(), rows, strict=True):
        expected = model.generate(**alone, **settings)[0, alone["input_ids"].shape[1] :].tolist()
        assert ours[: len(expected)] == expected


@torch.no_grad()
def test_generate_returns_the_prompt_as_given_and_leaves_it_alone(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = row(6, image=True)
    before = inputs["input_ids"].clone()
    out = model.generate(**inputs, max_new_tokens=2, do_sample=False, eos_token_id=[])
    assert out.shape == (1, 8)
    assert torch.equal(out[:, :6], before)
    assert torch.equal(inputs["input_ids"], before)
    detailed = model.generate(
        **inputs, max_new_tokens=2, num_beams=2, num_return_sequences=2, return_dict_in_generate=True, eos_token_id=[]
    )
    assert torch.equal(detailed.sequences[:, :6], before.expand(2, -1))


@torch.no_grad()
def test_cached_steps_equal_one_pass(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = row(12, image=True)
    whole = model(**inputs).logits
    cache = DynamicCache(config=model.config.text)
    first = {**inputs, "input_ids": inputs["input_ids"][:, :7], "attention_mask": inputs["attention_mask"][:, :7]}
    model(**first, cache=cache, use_cache=True)
    rest = model(input_ids=inputs["input_ids"][:, 7:], cache=cache).logits  # several tokens over a cache
    torch.testing.assert_close(rest, whole[:, -5:], atol=1e-4, rtol=0)


@torch.no_grad()
def test_given_embeddings_equal_ids(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = row(8, image=False)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    torch.testing.assert_close(model(inputs_embeds=embeds).logits, model(**inputs).logits)


@torch.no_grad()
def test_logits_to_keep_and_backends_agree(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = batch(row(6, image=True, seed=1), row(4, image=True, seed=2))
    everything = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, everything[:, -1:])
    model.set_attn_implementation("eager")
    try:
        torch.testing.assert_close(model(**inputs).logits[:, -4:], everything[:, -4:], atol=1e-4, rtol=0)
    finally:
        model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_the_crayon_prompt_changes_image_tokens(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = row(6, image=True)
    other = {**inputs, "semantic": (inputs["semantic"] + 1) % 134}
    assert not torch.allclose(model(**inputs).logits, model(**other).logits, atol=1e-3)
    without = {name: value for name, value in inputs.items() if name not in ("semantic", "numbering")}
    assert not torch.allclose(model(**inputs).logits, model(**without).logits, atol=1e-3)


@torch.no_grad()
def test_every_token_gets_the_vector_of_its_own_class_and_number(model: CoLLaVOForConditionalGeneration) -> None:
    """Pairs of equal sum, and pairs whose class and number are exchanged, are told apart."""
    pairs = torch.tensor([[0, 0], [3, 5], [5, 3], [4, 4], [133, 20], [0, 20], [1, 0], [3, 5]])
    crayon = model.crayon
    vectors, index = crayon(pairs[:, 0].reshape(2, 4), pairs[:, 1].reshape(2, 4))
    assert (index.shape, len(vectors)) == ((2, 4), 7)
    for (semantic, numbering), found in zip(pairs.tolist(), vectors[index.flatten()], strict=True):
        expected = crayon.projector(crayon.semantic.weight[semantic] + crayon.numbering.weight[numbering])
        torch.testing.assert_close(found, expected)


def test_loss_is_that_of_the_labelled_tokens(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = row(8, image=True)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, -2:] = inputs["input_ids"][0, -2:]
    with torch.no_grad():
        out = model(**inputs, labels=labels)
        log_probs = torch.log_softmax(out.logits[0, -3:-1], dim=-1)
    expected = -log_probs[torch.arange(2), inputs["input_ids"][0, -2:]].mean()
    torch.testing.assert_close(out.loss, expected)


def test_images_that_do_not_fit_the_text_are_refused(model: CoLLaVOForConditionalGeneration) -> None:
    inputs = row(6, image=True)
    with pytest.raises(ValueError, match="no images were given"):
        model(input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="2 images of 64 tokens need one image token"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"].repeat(2, 1, 1, 1))
    twice = inputs["input_ids"].clone()
    twice[0, 4] = IMAGE
    with pytest.raises(ValueError, match="at most one in a row"):
        model(input_ids=twice, pixel_values=inputs["pixel_values"].repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="crayon indices have the shapes"):
        model(**{**inputs, "semantic": inputs["semantic"][:, :5]})
    with pytest.raises(ValueError, match="no whole number of 14 px patches"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][..., :100]})


def test_saved_in_shards_and_loaded_equal(model: CoLLaVOForConditionalGeneration, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    again = CoLLaVOForConditionalGeneration.from_pretrained(tmp_path)
    assert (again.config.text.hidden_size, again.config.num_image_tokens) == (64, 64)
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def test_gradients_reach_the_crayon_tables(model: CoLLaVOForConditionalGeneration) -> None:
    torch.manual_seed(0)
    trained = CoLLaVOForConditionalGeneration(tiny_config(VOCABULARY, IMAGE)).train()
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    trained.gradient_checkpointing_enable()
    inputs = row(8, image=True)
    trained(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)).loss.backward()
    for table in (trained.crayon.semantic, trained.crayon.numbering):
        assert table.weight.grad is not None
        assert table.weight.grad.abs().sum() > 0


def test_a_fresh_model_has_silent_pairs_and_queries_of_full_size() -> None:
    """Low-rank pairs add nothing at the start, and no vector of the crayon prompt is too small to be learned from."""
    torch.manual_seed(0)
    model = CoLLaVOForConditionalGeneration(tiny_config(100, 99))
    ends = {n: p for n, p in model.named_parameters() if n.endswith(("image_b.weight", "crayon_b.weight"))}
    assert len(ends) == 2 * (5 + 4)  # two layers; all five linears have the image's pair, w2 has no crayon pair
    assert not any(bool(p.any()) for p in ends.values())
    assert all(bool(p.any()) for n, p in model.named_parameters() if n.endswith("_a.weight"))
    vectors, _ = model.crayon(torch.arange(134)[:, None], torch.zeros(134, 1, dtype=torch.long))
    assert 0.1 < float(vectors.std()) < 3
