"""How the tiny language model starts to read boxes: found in ids, gathered by two heads, and looked up."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assets.tiny.train.boxes import Boxes, LayerRecord, box_loss, boxes_in, gather_numbers, number_ids, record_layer
from assets.tiny.train.rows import Encoded, PackedRow, Packer
from assets.tiny.train.start import config_of, near_numbers
from assets.tiny.train.vocabulary import pieces
from collavo.config import CoLLaVOConfig
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.tokenizer import tiny_tokenizer
from modeling.internlm2 import rotary_tables, rotate
from tests.limits import examples

TOKENIZER = tiny_tokenizer(pieces(["Which object is in the box [0.10, 0.20, 0.30, 0.40]?\n", ", ", "0.10, 0.20"] * 5))
NUMBERS = number_ids(TOKENIZER)
SIDE = st.integers(0, 100).map(lambda n: f"{n / 100:.2f}")
BOX = st.tuples(SIDE, SIDE, SIDE, SIDE).map(lambda sides: f"[{', '.join(sides)}]")
TEXT = st.lists(
    st.one_of(BOX, st.sampled_from(["What is in ", " and 0.50 of ", "?", " 0.10, 0.20, 0.30 "])), max_size=6
)


def a_row(question: str) -> PackedRow:
    ids = tuple(TOKENIZER(question, add_special_tokens=False).input_ids)
    return Packer(TOKENIZER, 64).rows([[Encoded("box_class", ids, 1), Encoded("box_class", ids, 1)]])


@settings(max_examples=examples(60))
@given(st.lists(TEXT.map("".join), min_size=1, max_size=3))
def test_boxes_are_found_where_a_text_has_them(texts: list[str]) -> None:
    rows = [TOKENIZER(text, add_special_tokens=False).input_ids for text in texts]
    longest = max(10, *map(len, rows))
    filled = torch.tensor([[*row, *[TOKENIZER.pad_token_id] * (longest - len(row))] for row in rows])
    expected = [
        (number, (float(a) + float(c)) / 2, (float(b) + float(d)) / 2)
        for number, text in enumerate(texts)
        for a, b, c, d in re.findall(r"(?=(\d\.\d\d), (\d\.\d\d), (\d\.\d\d), (\d\.\d\d))", text)
    ]
    found = boxes_in(filled, NUMBERS)
    assert found.rows.tolist() == [row for row, _, _ in expected]
    assert found.middles.flatten().tolist() == pytest.approx(
        [side for _, x, y in expected for side in (x, y)], abs=1e-6
    )
    assert torch.isin(filled[found.rows, found.tokens], NUMBERS).all()


def test_numbers_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="coordinates"):
        number_ids(tiny_tokenizer(["a", "0.00", "0.01"]))


def test_one_head_sees_left_and_right_and_another_top_and_bottom() -> None:
    torch.manual_seed(0)
    config = config_of(TOKENIZER, 112, 14)
    model = CoLLaVOForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    gather_numbers(model, NUMBERS, seed=0)
    row = a_row("Which object is in the box [0.10, 0.70, 0.30, 0.90]?\n")
    last = int(boxes_in(row.input_ids, NUMBERS).tokens[0])
    with torch.inference_mode(), record_layer(model.language_model.layers[0]) as heard:
        features = torch.zeros(1, 64, config.text.hidden_size)
        model(input_ids=row.input_ids, position_ids=row.position_ids, image_features=features)
    shares = [_shares(heard.packed, config, row, group, last) for group in range(2)]
    sides = torch.tensor([last - 6, last - 4, last - 2, last])
    across, down = (share[sides] for share in shares)
    assert across[[0, 2]].sum() > 0.85 and down[[1, 3]].sum() > 0.85
    assert min(across[0], across[2], down[1], down[3]) > 0.2


def _shares(packed: Tensor, config: CoLLaVOConfig, row: PackedRow, group: int, place: int) -> Tensor:
    """What the second head of a group attends to from a place."""
    text = config.text
    parts = packed.view(*packed.shape[1:2], text.num_key_value_heads, 4, text.head_dim)[:, group]
    cos, sin = (table[0, :, 0, 0] for table in rotary_tables(row.position_ids, text.head_dim, text.rope_theta))
    query, key = rotate(parts[:, 1], cos, sin)[place], rotate(parts[:, 2], cos, sin)
    logits = (key @ query / math.sqrt(text.head_dim)).masked_fill(~row.attention_mask[0, 0, place], -math.inf)
    return logits.softmax(-1)


def test_who_neither_looks_nor_says_has_the_loss_of_chance() -> None:
    config, row = config_of(TOKENIZER, 112, 14), a_row("[0.10, 0.70, 0.30, 0.90]?\n")
    boxes, length = boxes_in(row.input_ids, NUMBERS), row.input_ids.shape[1]
    seen = row.attention_mask[boxes.rows, 0, boxes.tokens].sum(-1)
    heard = LayerRecord(torch.zeros(1, length, 256), torch.zeros(1, length, 128))
    loss = box_loss(heard, config, row, boxes, torch.zeros(1, 64, dtype=torch.long), torch.randn(21, 128))
    assert len(boxes.rows) == 2
    assert loss.item() == pytest.approx(seen.log().mean().item() + math.log(21), abs=1e-5)
    none = Boxes(boxes.rows[:0], boxes.tokens[:0], boxes.middles[:0])
    assert box_loss(heard, config, row, none, torch.zeros(1, 64, dtype=torch.long), torch.randn(21, 128)) == 0


def test_what_a_box_should_say_is_what_its_middle_shows() -> None:
    """Names of the class at the middle make the loss of saying vanish, names of another one do not."""
    config, row = config_of(TOKENIZER, 112, 14), a_row("[0.60, 0.10, 0.70, 0.30]?\n")  # middle in column 5, row 1
    boxes, length = boxes_in(row.input_ids, NUMBERS), row.input_ids.shape[1]
    labels = torch.zeros(1, 64, dtype=torch.long)
    labels[0, 8 * 1 + 5] = 2
    names = 10 * torch.eye(3, 128)
    looks = row.attention_mask[boxes.rows, 0, boxes.tokens].sum(-1).log().mean().item()
    for said, right in ((2, True), (0, False)):
        heard = LayerRecord(torch.zeros(1, length, 256), names[said].expand(1, length, -1))
        loss = box_loss(heard, config, row, boxes, labels, names).item() - looks
        assert (loss < 1e-3) == right


def test_an_image_token_resembles_the_numbers_around_its_own_middle() -> None:
    across, down = near_numbers(8, 101)
    assert torch.allclose(across.sum(-1), torch.ones(64)) and torch.allclose(down.sum(-1), torch.ones(64))
    for token in range(64):
        line, column = divmod(token, 8)
        assert abs(int(across[token].argmax()) - (column + 0.5) * 12.5) <= 0.5
        assert abs(int(down[token].argmax()) - (line + 0.5) * 12.5) <= 0.5
