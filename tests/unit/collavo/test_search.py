"""The searches, against transformers' own on the same logits: a model whose logits are a table of random numbers."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from collavo.search import Generation, start_search
from tests.limits import examples

VOCABULARY, LONGEST = 11, 7
START = 10


class TableConfig(PreTrainedConfig):
    """Sizes of `Table`, under the names that generation asks for."""

    model_type = "table"
    vocab_size = VOCABULARY
    num_hidden_layers = 1
    is_encoder_decoder = False


class Table(PreTrainedModel, GenerationMixin):
    """Logits that depend on the last two tokens and the question, drawn from a seed; coarse, so that ties occur."""

    config_class = TableConfig
    main_input_name = "input_ids"
    _supports_cache_class = False

    def __init__(self, seed: int, questions: int, levels: int) -> None:
        super().__init__(TableConfig())
        self.unused = nn.Parameter(torch.zeros(1))
        generator = torch.Generator().manual_seed(seed)
        shape = (questions, VOCABULARY, VOCABULARY, VOCABULARY)
        self.table = torch.randint(0, levels, shape, generator=generator).float() / levels * 3
        self.question = torch.zeros(0, dtype=torch.long)

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutputWithPast:
        """Logits of the last position."""
        rows = self.question.repeat_interleave(len(input_ids) // len(self.question))
        return CausalLMOutputWithPast(logits=self.logits(rows, input_ids)[:, None])

    def logits(self, question: Tensor, ids: Tensor) -> Tensor:
        """By the last two tokens."""
        return self.table[question, ids[:, -2], ids[:, -1]]

    def prepare_inputs_for_generation(self, input_ids: Tensor, *_: Any, **__: Any) -> dict[str, Tensor]:
        """No cache."""
        return {"input_ids": input_ids}


def ours(model: Table, generation: Generation, ends: list[int], questions: int) -> list[list[int]]:
    """Replies by our search over the same table."""
    search = start_search(generation, list(range(questions)), ends, torch.device("cpu"))
    beams, order = generation.num_beams, torch.arange(questions)
    rows = torch.full((questions * beams, 2), START)
    logits = model.logits(order, rows[::beams])[:, None]
    for step in range(generation.max_new_tokens):
        tokens, parents = search.advance(logits)
        continued = (parents + order[:, None] * beams).flatten()
        rows = torch.cat([rows[continued], tokens.flatten()[:, None]], 1)
        if step + 1 < generation.max_new_tokens:
            logits = model.logits(order.repeat_interleave(beams), rows).view(questions, beams, -1)
    assert bool(search.finite.all())
    return [cut(ids, ends) for ids in search.sequences().tolist()]


def cut(ids: list[int], ends: list[int]) -> list[int]:
    """Up to and with the first end token."""
    found = [place for place, token in enumerate(ids) if token in ends]
    return ids[: found[0] + 1] if found else ids


def theirs(model: Table, generation: Generation, ends: list[int], question: int) -> list[int]:
    """A reply by transformers, for one question alone."""
    model.question = torch.tensor([question])
    out = model.generate(
        torch.full((1, 2), START),
        do_sample=False,
        num_beams=generation.num_beams,
        max_new_tokens=generation.max_new_tokens,
        length_penalty=generation.length_penalty,
        early_stopping=generation.early_stopping,
        eos_token_id=ends,
        pad_token_id=0,
        use_cache=False,
    )
    return cut(out[0, 2:].tolist(), ends)


@settings(max_examples=examples(60))
@given(
    seed=st.integers(0, 10_000),
    beams=st.sampled_from([1, 2, 3, 5]),
    longest=st.integers(1, LONGEST),
    penalty=st.sampled_from([1.0, 0.0, -1.0, 2.0]),
    early=st.booleans(),
    ends=st.sampled_from([[1], [1, 4], [0, 1, 2]]),
    levels=st.sampled_from([3, 20, 10_000]),
)
def test_token_ids_equal_those_of_transformers(
    seed: int, beams: int, longest: int, penalty: float, early: bool, ends: list[int], levels: int
) -> None:
    questions = 3
    model = Table(seed, questions, levels)
    generation = Generation(
        num_beams=beams, max_new_tokens=longest, length_penalty=penalty, early_stopping=early and beams > 1
    )
    replies = ours(model, generation, ends, questions)
    assert replies == [theirs(model, generation, ends, question) for question in range(questions)]


def test_done_questions_change_no_more() -> None:
    """Stopping at the first step where all are done gives what going on to the limit gives."""
    model = Table(3, 4, 10_000)
    generation = Generation(num_beams=3, max_new_tokens=LONGEST, length_penalty=0.0)
    search = start_search(generation, [0, 1, 2, 3], [0, 1, 2, 3], torch.device("cpu"))
    rows, order = torch.full((12, 2), START), torch.arange(4)
    kept: dict[int, Any] = {}
    logits = model.logits(order, rows[::3])[:, None]
    for _ in range(LONGEST):
        tokens, parents = search.advance(logits)
        rows = torch.cat([rows[(parents + order[:, None] * 3).flatten()], tokens.flatten()[:, None]], 1)
        logits = model.logits(order.repeat_interleave(3), rows).view(4, 3, -1)
        for question in search.done().nonzero()[:, 0].tolist():
            kept.setdefault(question, cut(search.sequences()[question].tolist(), [0, 1, 2, 3]))
    assert kept
    for question, ids in kept.items():
        assert cut(search.sequences()[question].tolist(), [0, 1, 2, 3]) == ids


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_are_noticed_where_they_are(beams: int, value: float) -> None:
    generation = Generation(num_beams=beams, max_new_tokens=3)
    search = start_search(generation, [0, 1], [1], torch.device("cpu"))
    torch.manual_seed(0)
    search.advance(torch.randn(2, 1, VOCABULARY))
    logits = torch.randn(2, beams, VOCABULARY)
    logits[1, 0, 5] = value
    search.advance(logits)
    assert search.finite.tolist() == [True, False]


def test_sampling_draws_from_the_nucleus_alike_in_any_company() -> None:
    """Frequencies within the top-p set equal the renormalised probabilities; a question's draws are its own."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    generation = Generation(num_beams=1, max_new_tokens=1, temperature=1.0, top_p=0.8, seed=5)
    draws = list(range(4000))
    search = start_search(generation, draws, [9], torch.device("cpu"))
    search.advance(probabilities.log().expand(len(draws), 1, 4))
    tokens = search.sequences()[:, 0]
    assert set(tokens.tolist()) == {0, 1}
    assert abs(float((tokens == 0).float().mean()) - 0.5 / 0.8) < 0.03
    alone = start_search(generation, [17], [9], torch.device("cpu"))
    alone.advance(probabilities.log().expand(1, 1, 4))
    assert alone.sequences()[0, 0] == tokens[17]


@pytest.mark.parametrize(
    "wrong", [{"num_beams": 0}, {"max_new_tokens": 0}, {"top_p": 0.0}, {"temperature": -1.0}, {"temperature": 1.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need|sampling"):
        Generation(**{"num_beams": 3, "max_new_tokens": 5, **wrong})
