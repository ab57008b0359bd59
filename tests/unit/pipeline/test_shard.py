"""Every record is asked for exactly once, whatever the processes, the batch size and the order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from datasets.types import ImageFile, Record
from pipeline.run.questions import Question, batch_size_per_process, batches, distinct_questions, divide


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


@given(ASKED, st.integers(1, 9), st.integers(1, 20))
def test_every_id_is_asked_once(asked: list[tuple[Record, str]], world: int, total: int) -> None:
    shares = divide(distinct_questions(asked), world)
    size = batch_size_per_process(total, world)
    assert len(shares) == world
    answered = [i for share in shares for batch in batches(share, size) for question in batch for i in question.ids]
    assert sorted(answered) == sorted(r.id for r, _ in asked)
    assert all(len(batch) <= size for share in shares for batch in batches(share, size))


@given(ASKED, st.integers(1, 9))
def test_shares_are_even_up_to_one_image(asked: list[tuple[Record, str]], world: int) -> None:
    questions = distinct_questions(asked)
    loads = [len(share) for share in divide(questions, world)]
    images = Counter(q.image.name for q in questions if q.image is not None)
    assert max(loads) - min(loads) <= max([*images.values(), 1])


@given(ASKED, st.integers(1, 9))
def test_a_image_stays_together(asked: list[tuple[Record, str]], world: int) -> None:
    questions = distinct_questions(asked)
    fair = -(-len(questions) // world)
    shares = divide(questions, world)
    for name, count in Counter(q.image.name for q in questions if q.image).items():
        places = [(rank, at) for rank, share in enumerate(shares) for at, q in enumerate(share) if names(q) == name]
        if count <= fair:
            assert places == [(places[0][0], places[0][1] + i) for i in range(count)]


def names(question: Question) -> str | None:
    return None if question.image is None else question.image.name


def test_one_process_keeps_the_order_of_the_images() -> None:
    asked = [record(0, 3, 0), record(1, 1, 0), record(2, 3, 1), record(3, None, 0), record(4, 3, 0)]
    (share,) = divide(distinct_questions(asked), 1)
    assert [question.ids for question in share] == [("r0", "r4"), ("r2",), ("r1",), ("r3",)]


def test_batch_size_is_rounded_up() -> None:
    assert [batch_size_per_process(total, 3) for total in (1, 3, 4, 6, 7)] == [1, 1, 2, 2, 3]


def test_more_processes_than_questions_leaves_some_idle() -> None:
    shares = divide(distinct_questions([record(0, 0, 0), record(1, 1, 0)]), 4)
    assert sorted(map(len, shares)) == [0, 0, 1, 1]
