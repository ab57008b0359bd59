"""Without a terminal, progress is plain lines with rate and remaining time."""

from __future__ import annotations

import pytest

from pipeline.runtime.console import Progress, Verbosity, complain, duration, say, showing, warn


def test_lengths_of_time_in_words() -> None:
    assert [duration(s) for s in (0.4, 45, 600, 5400, 11100)] == ["0 s", "45 s", "10 min", "1 h 30 min", "3 h 05 min"]


def test_plain_lines_at_growing_intervals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.runtime.console.time.monotonic", lambda: clock[0])
    with Progress("toy", 100, shown=True) as bar:
        for _ in range(100):
            clock[0] += 1.0
            bar.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "toy: 5 of 100 questions (5 %), 1.00 questions/s, 2 min left"
    assert [line.split()[1] for line in lines] == ["5", "15", "35", "75", "100"]
    assert "\r" not in "".join(lines)


def test_what_took_no_time_needs_no_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.runtime.console.time.monotonic", lambda: clock[0])
    for seconds in (1.0, 2.0):  # 3 s in all, and 6 s
        with Progress(f"{seconds}", 3, shown=True, unit="images", always=False) as bar:
            for _ in range(3):
                clock[0] += seconds
                bar.advance(1)
    assert [line.split(" images")[0] for line in capsys.readouterr().err.splitlines()] == ["2.0: 3 of 3"]


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("toy", 1, shown=False) as bar:
        bar.advance(1)
    with Progress("toy", 0, shown=True):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (Verbosity.FULL, ["detail", "line", "warning: odd", "error: bad", "toy: 1 of 1"]),
        (Verbosity.BRIEF, ["line", "warning: odd", "error: bad"]),
        (Verbosity.QUIET, ["error: bad"]),
    ],
)
def test_a_message_appears_where_enough_is_shown(
    verbosity: Verbosity, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with showing(verbosity):
        say("detail")
        say("line", Verbosity.BRIEF)
        warn("odd")
        complain("bad")
        with Progress("toy", 1, shown=True) as bar:
            bar.advance(1)
    found = capsys.readouterr().err.splitlines()
    assert len(found) == len(shown) and all(map(str.startswith, found, shown))
