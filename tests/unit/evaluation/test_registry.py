"""Scorers and readers by name: one class and one line of a registry add one; a wrong name brings the nearest."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import datasets.evaluation
import datasets.registration
from datasets.declaration import Benchmark
from datasets.evaluation import evaluate, groups_of, unit_of
from datasets.evaluation.base import JudgedScorer, Scorer
from datasets.evaluation.judging import method, recorded_field, uses_judge
from datasets.evaluation.registry import SCORERS
from datasets.registration.base import Reader
from datasets.registration.preflight import missing_files, missing_places, unknown_placeholders
from datasets.registration.registry import READERS
from datasets.types import BadRecord, DataError, Metric, Record, Score, Scored
from tests.reading import load_records


@dataclass(frozen=True, kw_only=True)
class LengthScorer(Scorer):
    """The reply has as many characters as the target says."""

    spaces: bool = True

    def score(self, record: Record, text: str) -> Score:
        number = len(text if self.spaces else text.replace(" ", ""))
        return Score(value=float(number == record.target), extracted=str(number))

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        return [Metric(name="right", value=sum(s.score.value or 0.0 for s in scored), num=len(scored))]


@dataclass(frozen=True, kw_only=True)
class WordsReader(Reader):
    """A file of one JSON list of words."""

    prompt_fields: ClassVar[tuple[str, ...]] = ("word",)

    file: str = "words.json"

    def needed(self) -> list[tuple[str, ...]]:
        return [(self.file,)]

    def read(self, roots: Sequence[Path]) -> Iterator[Record | BadRecord]:
        for word in json.loads((roots[0] / self.file).read_text()):
            yield Record(id=word, image=None, fields={"word": word}, target=len(word))


def declared(scorer: str = "length", reader: str = "words", prompt: str = "{word}", **options: object) -> Benchmark:
    scoring = options.get("scoring", {})
    data = options.get("data", {})
    assert isinstance(scoring, dict) and isinstance(data, dict)
    return Benchmark(
        name="mine",
        dataset="mine",
        section="MINE",
        title="Mine",
        version=1,
        source="",
        reader=reader,
        data=data,
        prompt=prompt,
        num_beams=1,
        max_new_tokens=1,
        scorer=scorer,
        scoring=scoring,
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "length", LengthScorer)
    monkeypatch.setitem(READERS, "words", WordsReader)


def test_a_class_and_a_line_are_a_scorer_and_a_reader(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text('["ab", "c d"]')
    benchmark = declared()
    records, bad = load_records(benchmark, [tmp_path])
    assert ([record.id for record in records], bad) == (["ab", "c d"], [])
    for spaces, right in ((True, 2.0), (False, 1.0)):
        scored = evaluate(declared(scoring={"spaces": spaces}), [(record, record.id) for record in records])
        assert [(m.name, m.value) for m in scored.metrics] == [("right", right)]
    assert (missing_files(benchmark, [tmp_path]), missing_places(benchmark, [tmp_path])) == ([], [])
    assert missing_places(declared(data={"file": "x.json"}), [tmp_path]) == [[tmp_path / "x.json"]]
    assert unknown_placeholders(declared(prompt="{wort}")) == (["wort"], ("word",))


def test_what_a_scorer_does_not_say_has_defaults() -> None:
    benchmark, record = declared(), Record(id="7", image=None, fields={}, target="a", group="g")
    assert (unit_of(benchmark)(record), groups_of(benchmark)(record)) == ("7", ("g",))
    assert (uses_judge(benchmark), recorded_field(benchmark), method(benchmark, "j")) == (False, "", "")
    assert LengthScorer.submission is None


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (
            declared("lenght"),
            r"benchmark mine, scorer: there is no 'lenght'; did you mean length\? There are: choice, ",
        ),
        (declared("base"), "scorer: there is no 'base'.* There are: choice"),
        (declared(scoring={"space": True}), r"unknown key 'space'; did you mean spaces\? Known keys: spaces"),
        (declared(scoring={"spaces": 1}), "scorer.spaces: expected bool, got 1"),
    ],
)
def test_unknown_scorers_and_options(benchmark: Benchmark, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(benchmark, [])


def test_unknown_readers() -> None:
    with pytest.raises(DataError, match=r"benchmark mine, data: there is no 'word'; did you mean words\? There are: "):
        load_records(declared(reader="word"), [])


def test_every_class_of_the_packages_is_registered() -> None:
    """A module whose line was forgotten is found."""
    for package in (datasets.evaluation, datasets.registration):
        for info in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{info.name}")
    found = {kind for base in (Scorer, Reader) for kind in _below(base) if kind.__module__.startswith("datasets.")}
    abstract = {kind for kind in found if inspect.isabstract(kind)}
    assert found - abstract == {*SCORERS.values(), *READERS.values()} - {LengthScorer, WordsReader}
    assert {kind.__name__ for kind in abstract} == {"JudgedScorer", "LetterScorer"}
    assert [list(table) for table in (SCORERS, READERS)] == [
        [*sorted(set(table) - {"length", "words"}), new] for table, new in ((SCORERS, "length"), (READERS, "words"))
    ]
    assert all(kind.offline is not None for kind in SCORERS.values() if issubclass(kind, JudgedScorer))


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)
