"""A process that has finished takes over what others have left, and nothing is handed out twice."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.types import ImageFile
from pipeline.run.claims import ClaimFolder, remove_claims
from pipeline.run.questions import Question, WorkQueue, divide


def questions(number: int, images: int) -> list[Question]:
    """Questions about some images in turn; those left over have none."""
    made = []
    for index in range(number):
        name = f"{index % (images + 1)}.png"
        image = None if index % (images + 1) == images else ImageFile(Path("/nowhere") / name, name)
        made.append(Question(image=image, prompt=f"{index}?", ids=(f"r{index}",)))
    return made


@given(st.integers(0, 120), st.integers(0, 9), st.integers(1, 4), st.data())
def test_any_order_of_steps_hands_out_every_question_once(
    tmp_path_factory: pytest.TempPathFactory, number: int, images: int, world: int, data: st.DataObject
) -> None:
    claims = ClaimFolder(tmp_path_factory.mktemp("claims"))
    everything = questions(number, images)
    shares = divide(everything, world)
    expected: dict[int, int] = {rank: len(shares[rank]) for rank in range(world)}
    got: dict[int, list[str]] = {rank: [] for rank in range(world)}
    running = {
        rank: iter(WorkQueue(shares, rank, range(world), claims, lambda n, r=rank: expected.update({r: n})))
        for rank in range(world)
    }
    while running:
        rank = data.draw(st.sampled_from(sorted(running)))
        for _ in range(data.draw(st.integers(1, 40))):  # one process may be much faster than the others
            question = next(running[rank], None)
            if question is None:
                del running[rank]
                break
            got[rank] += question.ids
    assert sorted(name for names in got.values() for name in names) == sorted(f"r{n}" for n in range(number))
    assert expected == {rank: len(names) for rank, names in got.items()}


def test_one_process_does_the_work_of_all_that_never_begin(tmp_path: Path) -> None:
    everything = questions(60, 6)
    shares = divide(everything, 3)
    alone = list(WorkQueue(shares, 1, (0, 1, 2), ClaimFolder(tmp_path)))
    assert alone[: len(shares[1])] == shares[1] and len(alone) == len(everything)
    assert {q.key for q in alone} == {q.key for q in everything}
    assert list(WorkQueue(shares, 0, (0, 1, 2), ClaimFolder(tmp_path))) == []


def test_processes_of_another_folder_keep_their_share(tmp_path: Path) -> None:
    shares = divide(questions(60, 6), 3)
    both = list(WorkQueue(shares, 0, (0, 2), ClaimFolder(tmp_path)))
    assert {q.key for q in both} == {q.key for q in (*shares[0], *shares[2])}
    assert list(WorkQueue(shares, 1, (1,), None)) == shares[1]


def test_what_is_asked_for_is_claimed_and_no_more(tmp_path: Path) -> None:
    shares = divide(questions(200, 20), 2)
    first = iter(WorkQueue(shares, 0, (0, 1), ClaimFolder(tmp_path)))
    next(first)
    assert len(os.listdir(tmp_path)) == 1


def test_threads_that_claim_at_once_are_told_apart(tmp_path: Path) -> None:
    won: list[str] = []
    barrier = threading.Barrier(8)

    def claim_all() -> None:
        folder = ClaimFolder(tmp_path)
        barrier.wait()
        won.extend(name for name in map(str, range(50)) if folder.claim(name))

    threads = [threading.Thread(target=claim_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(map(str, range(50)))


def test_claims_of_ended_sessions_are_removed_and_journals_stay(tmp_path: Path) -> None:
    for token in ("a", "b"):
        (tmp_path / f"claims-{token}").mkdir()
        assert ClaimFolder(tmp_path / f"claims-{token}").claim("0-0")
    (tmp_path / "process-0-a.jsonl").touch()
    remove_claims(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["process-0-a.jsonl"]
