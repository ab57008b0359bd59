"""Questions that share an image: each sees the image and itself alone, and the loss is that of separate rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assets.tiny.random_checkpoint import make_tiny
from collavo.crayon import CrayonPrompt, object_list
from collavo.load_collavo import load_model
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.options import LLMConfig
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT
from collavo.training_inputs import IGNORE_INDEX, training_inputs
from datasets.instruct.types import Sample, Turn, share_images
from datasets.types import ImageFile
from trainer.data.batches import Batch, Example, collate, positions_within, seen_within

IMAGE, OTHER = ImageFile(Path("a.jpg"), "a.jpg"), ImageFile(Path("b.jpg"), "b.jpg")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor]:
    folder = tmp_path_factory.mktemp("packed") / "tiny"
    make_tiny(folder, seed=1)
    return load_model(LLMConfig(BITS=32, DTYPE="fp32"), folder, torch.device("cpu")), (
        CoLLaVOProcessor.from_pretrained(folder)
    )


def sample(turns: int, image: ImageFile | None = IMAGE, name: str = "s") -> Sample:
    said = tuple(Turn(question=f"Is there a {name} {n}?", answer=f"{'no ' * n}dog") for n in range(turns))
    return Sample(id=name, image=image, turns=said, source="test", with_objects=False)


def example(one: Sample, processor: CoLLaVOProcessor, seed: int, max_length: int = 500) -> Example:
    rng = np.random.default_rng(seed)
    pixels = crayon = None
    if one.image is not None:
        pixels = rng.integers(0, 256, (112, 112, 3)).astype(np.uint8)
        crayon = CrayonPrompt(rng.integers(0, 134, (8, 8)), rng.integers(0, 21, (8, 8)), ())
    objects = None if crayon is None else object_list(crayon.objects)
    inputs = training_inputs(processor.tokenizer, CHAT, one, objects, 64, max_length)
    return Example(
        id=one.id, input_ids=inputs.input_ids, labels=inputs.labels, pixels=pixels, crayon=crayon, parts=inputs.parts
    )


def loss(model: CoLLaVOForConditionalGeneration, batch: Batch) -> float:
    with torch.no_grad():
        return float(model(**batch.inputs(), num_items_in_batch=1).loss)


def test_the_loss_is_that_of_separate_rows(parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor]) -> None:
    model, processor = parts
    together = [example(replace(sample(n), independent=True), processor, n) for n in (4, 2)]
    together.append(example(sample(3, None), processor, 0))  # a text among them, whose turns do see each other
    alone = [
        example(replace(sample(n), turns=(turn,)), processor, n) for n in (4, 2) for turn in sample(n).turns
    ] + together[2:]
    batch = collate(together, processor)
    assert batch.num_tokens == sum(len(one.input_ids) for one in together)
    apart = sum(loss(model, collate([one], processor)) for one in alone)
    assert loss(model, batch) == pytest.approx(apart, rel=1e-5)
    assert int((batch.labels != IGNORE_INDEX).sum()) == sum(one.num_labels for one in alone)


def test_turns_that_do_not_fit_are_left_out(parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor]) -> None:
    _, processor = parts
    whole = example(replace(sample(6), independent=True), processor, 0)
    cut = example(replace(sample(6), independent=True), processor, 0, max_length=150)
    assert max(cut.parts or ()) < max(whole.parts or ()) == 6
    assert list(cut.input_ids) == list(whole.input_ids)[: len(cut.input_ids)]
    assert 63 + len(cut.input_ids) <= 150


def test_conversations_of_one_turn_share_their_image() -> None:
    samples = [sample(1, IMAGE, "a"), sample(1, OTHER, "b"), sample(2, IMAGE, "c"), sample(1, None, "d")]
    samples += [sample(1, IMAGE, "e"), sample(1, IMAGE, "f")]
    joined = share_images(samples, 2)
    assert [[turn.question for turn in one.turns] for one in joined] == [
        ["Is there a a 0?", "Is there a e 0?"],
        ["Is there a b 0?"],
        ["Is there a c 0?", "Is there a c 1?"],
        ["Is there a d 0?"],
        ["Is there a f 0?"],
    ]
    assert [one.independent for one in joined] == [True, False, False, False, False]
    assert share_images(samples, 1) == samples


@given(st.integers(0, 3), st.integers(1, 4), st.lists(st.integers(1, 4), max_size=4))
def test_what_is_seen(padding: int, shared: int, lengths: list[int]) -> None:
    row = [-1] * padding + [0] * shared + [n for n, length in enumerate(lengths, start=1) for _ in range(length)]
    seen, places = seen_within(torch.tensor([row]))[0, 0], positions_within(torch.tensor([row]))[0].tolist()
    for i, mine in enumerate(row):
        expected = [j <= i and (theirs == mine or (theirs == 0 and mine > 0)) for j, theirs in enumerate(row)]
        assert seen[i].tolist() == expected
        before = sum(expected) - 1  # tokens that it sees before itself: its place, were they alone
        assert places[i] == (before if mine >= 0 else 0)


def test_the_first_label_of_a_row_is_never_learned_and_not_counted(
    parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor],
) -> None:
    one = Example(id="one", input_ids=[5, 6, 7], labels=[5, IGNORE_INDEX, 7])
    two = Example(id="two", input_ids=[5, 6, 7], labels=[5, 6, 7])
    assert (one.num_labels, two.num_labels) == (1, 2)
    assert collate([one, two], parts[1]).num_labels == 3
