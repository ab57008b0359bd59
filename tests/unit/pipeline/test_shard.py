"""Every record is asked for exactly once, whatever the processes, the batch size and the order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from datasets.types import ImageFile, Record
from pipeline.run.questions import (
    IMAGE_COST,
    Question,
    batches,
    chunks,
    cost,
    distinct_questions,
    divide,
)


def record(number: int, image: int | None, question: int) -> tuple[Record, str]:
    source = None if image is None else ImageFile(Path(f"/nowhere/{image}.png"), f"{image}.png")
    return Record(id=f"r{number}", image=source, fields={}, target=None), f"Question {question}?"


ASKED = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 5)), max_size=80).map(
    lambda pairs: [record(number, *pair) for number, pair in enumerate(pairs)]
)


@given(ASKED)
def test_questions_are_distinct_and_cover_every_record(asked: list[tuple[Record, str]]) -> None:
    questions = distinct_questions(asked)
    assert len({question.key for question in questions}) == len(questions)
    assert Counter(i for question in questions for i in question.ids) == Counter(r.id for r, _ in asked)
    of = {record.id: (record.image, prompt) for record, prompt in asked}
    for question in questions:
        assert {of[i] for i in question.ids} == {(question.image, question.prompt)}


@given(ASKED, st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
def test_every_id_is_asked_once(asked: list[tuple[Record, str]], world: int, first: int, most: int) -> None:
    shares = divide(distinct_questions(asked), world)
    assert len(shares) == world
    cut = [list(batches(share, first, most)) for share in shares]
    answered = [i for share in cut for batch in share for question in batch for i in question.ids]
    assert sorted(answered) == sorted(r.id for r, _ in asked)
    assert all(1 <= len(batch) <= most for share in cut for batch in share)


@given(ASKED, st.integers(1, 9))
def test_shares_cost_the_same_up_to_one_image(asked: list[tuple[Record, str]], world: int) -> None:
    questions = distinct_questions(asked)
    loads = [cost(share) for share in divide(questions, world)]
    images = Counter(q.image.name for q in questions if q.image is not None)
    assert max(loads) - min(loads) <= max([*(number + IMAGE_COST for number in images.values()), 1])


def test_an_image_costs_as_much_as_eight_questions() -> None:
    about_many = [record(number, number, 0) for number in range(4)]
    about_one = [record(100 + question, 9, question) for question in range(12)]
    without = [record(200 + question, None, question) for question in range(8)]
    assert [cost(distinct_questions(asked)) for asked in (about_many, about_one, without)] == [4 * 9, 8 + 12, 8]
    shares = divide(distinct_questions([*about_many, *about_one, *without]), 2)
    assert [cost(share) for share in shares] == [32, 32]


@given(ASKED, st.integers(1, 9))
def test_an_image_stays_together(asked: list[tuple[Record, str]], world: int) -> None:
    questions = distinct_questions(asked)
    shares = divide(questions, world)
    for name, count in Counter(q.image.name for q in questions if q.image).items():
        places = [(rank, at) for rank, share in enumerate(shares) for at, q in enumerate(share) if names(q) == name]
        if count < 2 * IMAGE_COST:
            assert places == [(places[0][0], places[0][1] + i) for i in range(count)]


@example(40, 5)  # four pieces would cost 10 + 8 each, more than a fifth of 40 + 4 * 8
@given(st.integers(1, 300), st.integers(1, 5))
def test_an_image_with_more_questions_than_a_fair_share_is_split(number: int, world: int) -> None:
    shares = divide(distinct_questions([record(index, 0, index) for index in range(number)]), world)
    sizes = [len(share) for share in shares if share]
    assert len(sizes) == (world if number >= IMAGE_COST * world else max(1, number // IMAGE_COST))
    assert max(sizes) - min(sizes) < len(sizes)


@given(ASKED, st.integers(1, 5))
def test_chunks_are_a_share_in_order(asked: list[tuple[Record, str]], world: int) -> None:
    for share in divide(distinct_questions(asked), world):
        cut = chunks(share)
        assert [question for chunk in cut for question in chunk] == share and all(cut)
        for before, after in pairwise(cut):  # few questions about an image stay in one chunk
            assert names(before[-1]) is None or names(before[-1]) != names(after[0])


def test_many_questions_about_one_image_are_several_chunks() -> None:
    share = distinct_questions([record(number, 0, number) for number in range(500)])
    cut = chunks(share)
    assert 10 < len(cut) < 17 and all(len(chunk) >= 4 * IMAGE_COST for chunk in cut[:-1])


def names(question: Question) -> str | None:
    return None if question.image is None else question.image.name


def test_one_process_keeps_the_order_of_the_images() -> None:
    asked = [record(0, 3, 0), record(1, 1, 0), record(2, 3, 1), record(3, None, 0), record(4, 3, 0)]
    (share,) = divide(distinct_questions(asked), 1)
    assert [question.ids for question in share] == [("r0", "r4"), ("r2",), ("r1",), ("r3",)]


def test_a_hint_is_where_batches_begin_and_no_more() -> None:
    (share,) = divide(distinct_questions([record(n, None, n) for n in range(40)]), 1)
    assert [len(batch) for batch in batches(share, 3, 16)] == [3, 6, 12, 16, 3]
    assert [len(batch) for batch in batches(share, 64, 16)] == [16, 16, 8]


def test_more_processes_than_questions_leaves_some_idle() -> None:
    shares = divide(distinct_questions([record(0, 0, 0), record(1, 1, 0)]), 4)
    assert sorted(map(len, shares)) == [0, 0, 1, 1]


def test_large_images_go_to_the_process_that_has_least() -> None:
    sizes = (4, 3, 3, 2, 2, 1, 1)
    asked = [record(100 * image + n, image, n) for image, size in enumerate(sizes) for n in range(size)]
    assert [len(share) for share in divide(distinct_questions(asked), 2)] == [8, 8]


def test_an_image_with_more_than_a_share_is_cut_and_its_order_kept() -> None:
    asked = [record(n, 0, n) for n in range(40)]
    shares = [[q.ids[0] for q in share] for share in divide(distinct_questions(asked), 2)]
    assert shares == [[f"r{n}" for n in range(20)], [f"r{n}" for n in range(20, 40)]]


def test_the_images_of_a_process_are_in_data_order() -> None:
    asked = [record(10 * image + n, image, n) for image, size in enumerate((1, 2, 3)) for n in range(size)]
    (share,) = divide(distinct_questions(asked), 1)
    assert [question.ids[0] for question in share] == ["r0", "r10", "r11", "r20", "r21", "r22"]
