"""An image's prefix runs once for its questions, and replies stay those of a plain loop over whole prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from collavo.engine import Generation, Query, Reply
from pipeline.base import NoReply
from pipeline.models.hf_engine import TransformersEngine
from pipeline.models.profile import load_profile
from tests.tiny_models import EOS, FAMILIES, PAD, tiny
from tests.unit.pipeline.models.test_families import TEXT_ALONE, TOKENS, image, plain_inputs, texts

SIZES = ((40, 60), (60, 40), (30, 30))
QUESTIONS = ("Is there a dog?", "what", "Where is it?")
REFUSED = {
    "blip-2": "its way to generate starts at the pixels each time",
    "instructblip": "its way to generate starts at the pixels each time",  # and its Q-Former reads the question
    "paligemma": "its profile says so (reuse_prefix)",
}
ALLOWED = [family for family in FAMILIES if family not in REFUSED]
ASKED = [Query(image(*size), question) for size in SIZES for question in QUESTIONS]
pytestmark = pytest.mark.slow  # models of all families


def made(family: str, **settings: Any) -> TransformersEngine:
    torch.set_num_threads(1)
    model, processor = tiny(family)
    text = model.config.get_text_config()
    if getattr(text, "sliding_window", None):
        text.sliding_window = 4096
    return TransformersEngine(model, processor, load_profile(family, settings).profile)


def watched(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[int]], list[int]]:
    """Token ids of replies as they come, and how many rows with pixels went through the model."""
    ids: list[list[int]] = []
    rows: list[int] = []
    reply, generate = engine._reply, engine.model.generate

    def replies(prompt: str, tokens: list[int], generation: Generation) -> Reply:
        ids.append(tokens)
        return reply(prompt, tokens, generation)

    def generates(**inputs: Any) -> Any:
        rows.append(len(inputs["input_ids"]) if "pixel_values" in inputs else 0)
        return generate(**inputs)

    monkeypatch.setattr(engine, "_reply", replies)
    monkeypatch.setattr(engine.model, "generate", generates)
    return ids, rows


def plain_ids(engine: TransformersEngine, family: str, query: Query, beams: int) -> list[int]:
    inputs = plain_inputs(engine, family, query)
    inputs.pop("labels", None)
    with torch.inference_mode():
        out = engine.model.generate(
            **inputs, do_sample=False, num_beams=beams, max_new_tokens=TOKENS, eos_token_id=[EOS], pad_token_id=PAD
        )[0]
    return [int(token) for token in out[inputs["input_ids"].shape[1] :]]


@pytest.mark.parametrize("family", ALLOWED)
@pytest.mark.parametrize("beams", [1, 3])
def test_token_ids_are_those_of_whole_prompts(family: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With questions of different lengths, images of different sizes, and text-only questions among them."""
    engine = made(family)
    asked = [*ASKED[:4], *([Query(None, "hello")] if family in TEXT_ALONE else []), *ASKED[4:]]
    expected = [plain_ids(engine, family, query, beams) for query in asked]
    search = Generation(num_beams=beams, max_new_tokens=TOKENS)
    engine.answer(asked, search)  # compares
    assert engine.prefixes.refused == ""
    ids, rows = watched(engine, monkeypatch)
    engine.answer(asked, search)
    assert sum(rows) == len(SIZES), "each image runs once"
    order = {id(query): place for place, query in enumerate(asked)}
    groups: dict[Any, list[int]] = {}
    for query in asked:
        groups.setdefault(engine.prepare(0, query).shape, []).append(order[id(query)])
    places = [place for group in groups.values() for place in group]
    for place, found in zip(places, ids, strict=True):
        length = len(expected[place])
        assert found[:length] == expected[place] and set(found[length:]) <= {PAD, EOS}


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_do_not_allow_it_say_why(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made(family)
    assert engine.prefixes.refused == REFUSED[family]
    assert f"not reused over its questions: {REFUSED[family]}" in engine.described()
    _, rows = watched(engine, monkeypatch)
    engine.answer(ASKED[:3], Generation(num_beams=1, max_new_tokens=2))
    assert rows == [3]


def test_every_profile_of_the_library_is_in_one_of_the_lists() -> None:
    assert {*ALLOWED, *REFUSED} == set(FAMILIES)


GREEDY = Generation(num_beams=1, max_new_tokens=TOKENS)


def test_an_image_that_sees_the_question_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    """PaliGemma, had its profile not said so: the comparison ends the reuse, and replies are right all the same."""
    engine, plain = made("paligemma", reuse_prefix=True), made("paligemma")
    assert engine.prefixes.refused == ""
    assert texts(engine.answer(ASKED, GREEDY)) == texts(plain.answer(ASKED, GREEDY))
    assert "differ" in engine.prefixes.refused
    assert "warning: an image's prefix is not reused over its questions any more" in capsys.readouterr().err
    assert texts(engine.answer(ASKED, GREEDY)) == texts(plain.answer(ASKED, GREEDY))


def test_probabilities_are_compared_where_replies_happen_to_be_equal() -> None:
    """Replies of one token from a model whose scores are nearly all equal to one token's."""
    engine = made("paligemma", reuse_prefix=True)
    head = engine.model.lm_head

    class Biased(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = head(hidden)
            return scores + torch.nn.functional.one_hot(torch.tensor(9), scores.shape[-1]) * (scores.max() + 1)

    engine.model.lm_head = Biased()
    found = engine.answer(ASKED[:3], Generation(num_beams=1, max_new_tokens=1))
    assert len(set(texts(found))) == 1
    assert "probabilities differ" in engine.prefixes.refused


def test_a_model_that_cannot_go_on_from_a_cache_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    engine, plain = made("llava-1.5"), made("llava-1.5", reuse_prefix=False)
    generate = engine.model.generate

    def refuses(**inputs: Any) -> Any:
        if "position_ids" in inputs:
            raise TypeError("unexpected keyword")
        return generate(**inputs)

    engine.model.generate = refuses
    assert texts(engine.answer(ASKED, GREEDY)) == texts(plain.answer(ASKED, GREEDY))
    assert "any more: the model fails with it: TypeError: unexpected keyword" in capsys.readouterr().err
    assert "is not reused over its questions: the model fails" in engine.described()


def test_what_was_compared_is_said_once() -> None:
    said: list[str] = []
    model, processor = tiny("llava-1.5")
    engine = TransformersEngine(model, processor, load_profile("llava-1.5").profile, said.append)
    for _ in range(2):
        engine.answer(ASKED, GREEDY)
    assert said == ["  replies of questions that share an image's prefix equal those without its reuse"]


def test_each_way_of_sharing_is_compared_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made("llava-1.5")
    _, rows = watched(engine, monkeypatch)
    for asked, expected in (
        (ASKED[1:2] * 2, [2, 1, 0]),  # one image, equal lengths: compared
        (ASKED[1:2] * 2, [1, 0]),
        (ASKED[:3], [3, 1, 0]),  # other lengths: compared
        (ASKED[:3], [1, 0]),
        (ASKED, [9, 3, 0]),  # several images: compared
        (ASKED, [3, 0]),
    ):
        rows.clear()
        engine.answer(asked, GREEDY)
        assert rows == expected


def test_prompts_longer_than_a_window_run_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made("gemma3")
    engine.answer(ASKED[:3], GREEDY)
    assert "over its questions of up to 4096 tokens" in engine.described()
    length = max(engine.prepare(0, query).inputs["input_ids"].shape[1] for query in ASKED[:3]) + TOKENS
    _, rows = watched(engine, monkeypatch)
    for window, expected in ((length, [1, 0]), (length - 1, [3])):
        rows.clear()
        engine.prefixes.window = window
        engine.answer(ASKED[:3], GREEDY)
        assert rows == expected


def test_what_has_no_image_or_no_other_question_is_not_shared() -> None:
    engine = made("llava-1.5")

    def shared(asked: Sequence[Query]) -> bool:
        return engine.prefixes.shared([engine.prepare(i, q) for i, q in enumerate(asked)], TOKENS) is not None

    assert shared(ASKED[:2]) and shared(ASKED[:4])
    assert not shared(ASKED[:1]) and not shared(ASKED[::3])
    assert not shared([Query(None, "a"), Query(None, "b")])


def test_sampling_and_models_that_run_alone_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made("llava-1.5")
    _, rows = watched(engine, monkeypatch)
    engine.answer(ASKED[:3], Generation(num_beams=1, max_new_tokens=2, temperature=1.0))
    assert rows == [1, 1, 1]
    assert "run alone" in made("llava-1.5", batch="alone").prefixes.refused


def test_scores_that_are_not_finite_stay_errors_of_their_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made("llava-1.5")
    engine.answer(ASKED[:3], GREEDY)
    head = engine.model.lm_head

    class Broken(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = head(hidden).clone()
            if len(scores) == 3:
                scores[1] = float("nan")
            return scores

    engine.model.lm_head = Broken()
    assert [type(reply) for reply in engine.answer(ASKED[:3], GREEDY)] == [Reply, NoReply, Reply]
