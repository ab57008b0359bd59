"""Short answers: what counts as equal, and a majority-answer baseline."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation import exact_match
from datasets.types import Record, Scored
from pipeline.results.report import plain_table

OPTIONS = exact_match.Options(by=("kind",), chance=True)


def scored(kind: str, target: str, text: str, number: int) -> Scored:
    record = Record(id=str(number), image=None, fields={}, target=target, meta={"kind": kind})
    return Scored(record=record, text=text, score=exact_match.score(record, text, OPTIONS))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["Yes", "no", "3"]), st.sampled_from(["yes.", "No"]))))
def test_chance_is_the_share_of_the_commonest_answer(items: list[tuple[str, str, str]]) -> None:
    every = [scored(kind, target, text, i) for i, (kind, target, text) in enumerate(items)]
    rows = {(m.group, m.name): m.value for m in exact_match.summarize(every, OPTIONS)}
    for group, members in (("", items), *((f"kind/{k}", [i for i in items if i[0] == k]) for k in "ab")):
        if not members:
            assert rows.get((group, "chance")) is None
            continue
        counts = Counter(target.lower() for _, target, _ in members)
        assert rows[group, "chance"] == max(counts.values()) / len(members)
        right = sum(text.lower().rstrip(".") == target.lower() for _, target, text in members)
        assert rows[group, "accuracy"] == right / len(members)


def test_without_being_asked_there_is_no_chance() -> None:
    names = {m.name for m in exact_match.summarize([scored("a", "yes", "yes", 0)], exact_match.Options())}
    assert "chance" not in names


def test_chance_stands_beside_its_figure_in_tables() -> None:
    metrics = [
        {"group": g, "name": n, "value": v, "num": 4, "stderr": None, "kind": "rate"}
        for g, n, v in (
            ("", "accuracy", 0.5),
            ("kind/a", "accuracy", 0.75),
            ("", "chance", 0.4),
            ("kind/a", "chance", 0.3),
        )
    ]
    results = {"metrics": metrics, "expected": [], "title": "T", "asked": {"rules": "official"}}
    table = plain_table({**results, "judged": {"decided_by": ""}})
    assert "50.00 (chance 40.00)" in table
    assert "75.00 (chance 30.00)" in table
    assert "kind/a  chance" not in table
