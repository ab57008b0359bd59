"""The journal survives kills at any byte, and its lines count by what they say, not by where they stand."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.journal import Journal, JournalEntry, parse_line, read_folder, usable_answers

TEXT = st.text(max_size=30)
ENTRIES = st.builds(
    JournalEntry,
    run=st.sampled_from(["a", "b", "c"]),
    id=TEXT,
    image=st.none() | TEXT,
    question=TEXT,
    prompt=TEXT,
    text=TEXT,
    finished=st.booleans(),
    num_tokens=st.integers(0, 500),
    seconds=st.floats(0, 1e6),
    error=st.none() | TEXT,
    margin=st.none() | st.floats(0, 1e3),
    close=st.booleans(),
    note=TEXT,
)


def write(file: Path, entries: list[JournalEntry]) -> None:
    with Journal(file) as journal:
        for entry in entries:
            journal.append(entry)


@given(st.lists(ENTRIES, max_size=5))
def test_what_is_written_is_read(tmp_path_factory, entries: list[JournalEntry]) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("journal")
    write(folder / "process-0.jsonl", entries)
    assert list(read_folder(folder)) == entries


@given(ENTRIES, ENTRIES, ENTRIES, st.data())
def test_a_torn_last_line_costs_one_line(tmp_path_factory, first, second, third, data) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path_factory.mktemp("journal") / "process-0.jsonl"
    write(file, [first])
    whole = file.stat().st_size
    write(file, [second])
    cut = data.draw(st.integers(whole, file.stat().st_size - 2))
    with file.open("rb+") as stream:
        stream.truncate(cut)
    assert list(read_folder(file.parent)) == [first]
    write(file, [third])
    assert list(read_folder(file.parent)) == [first, third]


def test_a_lone_surrogate_is_kept(tmp_path: Path) -> None:
    entry = JournalEntry(run="a", id="1", image=None, question="\ud800?")
    write(tmp_path / "x.jsonl", [entry])
    assert list(read_folder(tmp_path)) == [entry]


def test_lines_of_earlier_versions_are_read() -> None:
    whole = JournalEntry(run="a", id="1", image="i", question="q", text="yes")
    old = {name: value for name, value in vars(whole).items() if name not in ("margin", "close", "note")}
    assert parse_line(json.dumps(old).encode()) == whole
    del old["text"]
    assert parse_line(json.dumps(old).encode()) is None


def test_lines_of_other_shape_are_skipped() -> None:
    good = json.dumps({**vars(JournalEntry(run="a", id="1", image="i", question="q"))})
    assert parse_line(good.encode()) == JournalEntry(run="a", id="1", image="i", question="q")
    for change in ({"id": 1}, {"extra": ""}, {"finished": "yes"}, {"error": 0}):
        assert parse_line(json.dumps({**json.loads(good), **change}).encode()) is None
    for line in (b"", b"[]", b"null", b"{", b"\xff\xfe", b'"x"'):
        assert parse_line(line) is None


def test_a_line_starts_with_what_readers_look_for(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", [JournalEntry(run="a", id="1", image="i", question="q", text="no")])
    (line,) = (tmp_path / "x.jsonl").read_text().splitlines()
    assert list(json.loads(line))[:5] == ["id", "prompt", "text", "seconds", "error"]


def test_a_line_of_an_earlier_version_counts() -> None:
    entry = JournalEntry(run="a", id="1", image="i", question="q", text="Yes.")
    assert parse_line(json.dumps({**vars(entry), "extracted": "yes"}).encode()) == entry


def test_only_accepted_runs_and_no_errors_count() -> None:
    def entry(run: str, question: str, text: str, error: str | None = None) -> JournalEntry:
        return JournalEntry(run=run, id="1", image=None, question=question, text=text, error=error)

    entries = [
        entry("old", "q1", "old answer"),
        entry("new", "q1", "new answer"),
        entry("other", "q2", "of a run that is not accepted"),
        entry("new", "q3", "", "truncated image"),
        entry("old", "q4", "only the old run has it"),
    ]
    texts = {key[1]: answer.text for key, answer in usable_answers(entries, ["new", "old"]).items()}
    assert texts == {"q1": "new answer", "q4": "only the old run has it"}
    assert usable_answers(reversed(entries), ["new", "old"]) == usable_answers(entries, ["new", "old"])
    assert usable_answers(entries, ["nothing"]) == {}


def test_no_folder_is_an_empty_journal(tmp_path: Path) -> None:
    assert list(read_folder(tmp_path / "absent")) == []
