"""Training rows: prompts as in evaluation, labels on answers and end tags alone, truncation, texts that hold tags."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT, DEMO, IMAGE_TAG, START_TAG, STOP_TAG
from collavo.tokenizer import load_tokenizer, tiny_tokenizer
from collavo.training_inputs import IGNORE, ConversationError, TrainingInputs, training_inputs
from datasets.instruct.types import Sample, Turn
from datasets.types import ImageFile
from tests.unit.collavo.test_tokenizer import NORMAL, TAGS, train, with_pieces, write

TINY = tiny_tokenizer()
PROCESSOR = CoLLaVOProcessor(TINY, image_size=28, patch_size=14)
STOP, START, IMAGE = TINY.convert_tokens_to_ids([STOP_TAG, START_TAG, IMAGE_TAG])
OBJECTS = "(#1 dog) [0.00, 0.16, 0.29, 0.88]"
IMAGE_FILE = ImageFile(Path("a.jpg"), "a.jpg")
special = (START_TAG, STOP_TAG, IMAGE_TAG, "<s>", "</s>", "<unk>")
texts = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
    | st.lists(
        st.sampled_from(["Yes", " dog", "\n", "\n\n", "  ", "狗", "🐶", "#1", "user\n", "assistant\n", "0.88]"]),
        min_size=1,
    ).map("".join)
).filter(lambda text: not any(tag in text for tag in special))


def sample(*said: str, with_image: bool = True, with_objects: bool = True) -> Sample:
    turns = tuple(Turn(question=q, answer=a) for q, a in zip(said[::2], said[1::2], strict=True))
    image, with_objects = (IMAGE_FILE, with_objects) if with_image else (None, False)
    return Sample(id="7@3", image=image, turns=turns, source="test", with_objects=with_objects)


def row(
    conversation: Sample,
    objects: str | None = OBJECTS,
    max_length: int = 10_000,
    tokenizer: PreTrainedTokenizerBase = TINY,
) -> TrainingInputs:
    told = objects if conversation.image is not None else None
    return training_inputs(tokenizer, CHAT, conversation, told, 4, max_length)


def learned(found: TrainingInputs) -> list[list[int]]:
    """Runs of labelled ids."""
    runs: list[list[int]] = [[]]
    for label in found.labels:
        if label != IGNORE:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def words(*tokens: str) -> list[int]:
    return [TINY.convert_tokens_to_ids(token) for token in tokens]


def test_labels_of_a_single_turn_stand_exactly_on_the_answer() -> None:
    """Written out by hand: what stands before the reply, the reply, its end tag."""
    found = row(sample("Is there a dog?", "Yes, it is", with_image=False))
    tail = words(START_TAG, "user", "Ċ", "Is", "Ġthere", "Ġa", "Ġdog", "?", STOP_TAG, "Ċ", START_TAG, "assistant", "Ċ")
    answer = words("Yes", ",", "Ġit", "Ġis", STOP_TAG)
    assert found.input_ids[-len(tail) - len(answer) :] == tail + answer
    before = len(found.input_ids) - len(answer)
    assert found.labels == [IGNORE] * before + answer
    assert found.input_ids[0] == TINY.bos_token_id


def test_labels_of_several_turns_stand_exactly_on_the_answers() -> None:
    found = row(sample("Is there a dog?", "Yes", "Which?", "#1 dog", "Where?", "[0.00"))
    answers = [words("Yes", STOP_TAG), words("#", "1", "Ġdog", STOP_TAG)]
    assert learned(found)[:2] == [TINY("Yes").input_ids[1:] + [STOP], TINY("#1 dog").input_ids[1:] + [STOP]]
    assert learned(found)[0] == answers[0]
    first = len(PROCESSOR.encode([CHAT.prompt(OBJECTS, "Is there a dog?")])[0])
    between = TINY(f"\n{START_TAG}user\nWhich?{STOP_TAG}\n{START_TAG}assistant\n", add_special_tokens=False).input_ids
    second = first + 2 + len(between)
    assert found.labels[:second] == [IGNORE] * first + answers[0] + [IGNORE] * len(between)
    assert found.input_ids[first : second + 1] == [*answers[0], *between, learned(found)[1][0]]
    assert (found.input_ids[-1], found.labels[-1]) == (STOP, STOP)
    assert found.input_ids.count(STOP) == found.input_ids.count(START) == 6
    assert sum(label == STOP for label in found.labels) == 3


said = st.lists(st.tuples(texts, texts), min_size=1, max_size=4).map(lambda turns: [t for turn in turns for t in turn])


@given(said, st.booleans(), st.sampled_from([OBJECTS, ""]), st.booleans())
def test_learned_ids_are_the_answers_and_the_prompt_is_evaluations(
    spoken: list[str], with_image: bool, objects: str, with_objects: bool
) -> None:
    conversation = sample(*spoken, with_image=with_image, with_objects=with_objects)
    found = row(conversation, objects)
    assert [PROCESSOR.decode(run) for run in learned(found)] == [f"{answer}{STOP_TAG}" for answer in spoken[1::2]]
    prompt = CHAT.prompt(objects if with_image else None, spoken[0], with_objects=with_objects)
    ids = PROCESSOR.encode([prompt])[0]
    assert found.input_ids[: len(ids)] == ids
    assert found.labels[: len(ids)] == [IGNORE] * len(ids)
    assert found.labels[len(ids)] != IGNORE
    assert found.input_ids.count(IMAGE) == with_image
    assert found.length == len(found.input_ids) + 3 * with_image
    assert all(label in (IGNORE, index) for index, label in zip(found.input_ids, found.labels, strict=True))
    whole = prompt + spoken[1] + STOP_TAG
    for question, answer in zip(spoken[2::2], spoken[3::2], strict=True):
        whole += f"\n{START_TAG}user\n{question}{STOP_TAG}\n{START_TAG}assistant\n{answer}{STOP_TAG}"
    assert PROCESSOR.decode(found.input_ids[1:]) == whole


def test_crayon_instructions_do_not_tell_the_objects() -> None:
    told = row(sample("Name all.", "Sure, it is #1 dog"))
    untold = row(sample("Name all.", "Sure, it is #1 dog", with_objects=False))
    assert OBJECTS in PROCESSOR.decode(told.input_ids)
    prompt = PROCESSOR.decode(untold.input_ids).partition("assistant\n")[0]
    assert "#1" not in prompt
    assert "None of detailed" not in prompt
    assert prompt.endswith(f" <image> {START_TAG}user\nName all.{STOP_TAG}\n{START_TAG}")
    assert learned(told) == learned(untold)


@pytest.mark.parametrize("prefix", [True, False], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("tags", ["user defined", "normal", "added"])
def test_other_tokenizers_give_the_same(prefix: bool, tags: str, tmp_path: Path) -> None:
    model = train(TAGS if tags == "user defined" else (), prefix=prefix)
    tokenizer = load_tokenizer(write(tmp_path, with_pieces(model, list(TAGS), NORMAL) if tags == "normal" else model))
    conversation = sample("Is there a dog in the image?", "Yes, it is", "图中有几只狗？", "AI a dog\nthe end")
    found = row(conversation, tokenizer=tokenizer)
    runs = [tokenizer.decode(run, skip_special_tokens=False) for run in learned(found)]
    assert runs == [f"Yes, it is{STOP_TAG}", f"AI a dog\nthe end{STOP_TAG}"]
    ids = tokenizer(CHAT.prompt(OBJECTS, "Is there a dog in the image?")).input_ids
    assert found.input_ids[: len(ids)] == ids
    assert found.labels[: len(ids) + 1] == [IGNORE] * len(ids) + [learned(found)[0][0]]


def test_an_answer_that_merges_with_the_prompt_is_taken_alone(tmp_path: Path) -> None:
    """A vocabulary with a piece across the border: the prompt must still be what evaluation gives."""
    model = with_pieces(train((), prefix=False), [*TAGS, "\n", "\nY"], NORMAL)
    tokenizer = load_tokenizer(write(tmp_path, model))
    joined = tokenizer(f"{START_TAG}assistant\nYes", add_special_tokens=False).input_ids
    alone = tokenizer(f"{START_TAG}assistant\n", add_special_tokens=False).input_ids
    found = row(sample("Is there a dog?", "Yes"), tokenizer=tokenizer)
    ids = tokenizer(CHAT.prompt(OBJECTS, "Is there a dog?")).input_ids
    assert found.input_ids[: len(ids)] == ids
    (run,) = learned(found)
    assert tokenizer.decode(run, skip_special_tokens=False) == f"Yes{STOP_TAG}"
    assert joined[: len(alone)] != alone, "the vocabulary of this test no longer merges across the border"


def test_rows_are_cut_at_the_end() -> None:
    conversation = sample("Is there a dog?", "Yes, it is", "Which?", "#1 dog")
    whole = row(conversation)
    prompt = len(PROCESSOR.encode([CHAT.prompt(OBJECTS, "Is there a dog?")])[0])
    for kept in range(prompt + 1, len(whole.input_ids) + 5):
        found = row(conversation, max_length=kept + 3)  # an image of 4 tokens adds 3
        assert found.input_ids == whole.input_ids[:kept]
        assert found.labels == whole.labels[:kept]
        assert found.length == min(kept, len(whole.input_ids)) + 3
    for kept in (prompt + 3, prompt, 10, 3, 0):
        with pytest.raises(ConversationError, match=rf"sample 7@3: its first answer lies beyond the {kept} tokens"):
            row(conversation, max_length=kept)
    alone = sample("Hello", "Hi", with_image=False)
    full = row(alone)
    assert row(alone, max_length=full.length - 1).input_ids == full.input_ids[:-1]


@pytest.mark.parametrize("tag", [START_TAG, STOP_TAG, IMAGE_TAG])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("with_image", [True, False])
def test_texts_with_tags_are_refused(tag: str, place: int, with_image: bool) -> None:
    spoken = ["What?", "This.", "And?", "That."]
    spoken[place] += f" {tag} "
    with pytest.raises(ConversationError, match="sample 7@3: a text holds one of"):
        row(sample(*spoken, with_image=with_image))


@pytest.mark.parametrize("tag", ["<s>", "</s>"])
def test_answers_that_would_end_the_text_are_refused(tag: str) -> None:
    with pytest.raises(
        ConversationError, match=f"sample 7@3: the answer 'It is {tag}old' holds a begin- or end-of-text tag"
    ):
        row(sample("Is it?", "Yes", "What?", f"It is {tag}old"))
    assert row(sample(f"Is it {tag}old?", "Yes"))


def test_templates_without_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="demo template cannot be trained on"):
        training_inputs(TINY, DEMO, sample("a", "b"), "", 4, 100)
