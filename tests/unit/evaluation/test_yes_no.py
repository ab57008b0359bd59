"""Reading yes and no: the official rule to the letter, and whether there was an answer at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.yes_no import YesNoScorer, parse_pope, states_an_answer
from datasets.types import Record, Scored


@pytest.mark.parametrize(
    ("text", "official", "answered"),
    [
        ("Yes", "yes", True),
        ("No.", "no", True),
        ("no, there is none", "no", True),
        ("NO", "yes", True),
        ("Nope", "yes", True),
        ("Not at all", "yes", True),
        ("It is not. Yes", "no", True),
        ("Yes. It is not small", "yes", True),
        ("no\nbecause", "yes", True),
        ("Answer: No", "no", True),
        ("ＹＥＳ", "yes", True),
        ("不", "yes", True),
        ("是的", "yes", True),
        ("", "yes", False),
        ("   ", "yes", False),
        ("elephant", "yes", False),
        ("know", "yes", False),
        ("There is one.", "yes", True),
    ],
)
def test_official_reading_and_presence(text: str, official: str, answered: bool) -> None:
    assert parse_pope(text) == official
    assert states_an_answer(text) is answered
    verdict = YesNoScorer().score(record("1", "yes"), text)
    assert (verdict.value, verdict.no_answer) == (float(official == "yes"), not answered)


def test_the_released_rule_lowers_first() -> None:
    assert YesNoScorer(rule="pope_released").score(record("1", "no"), " NO ").value == 1.0
    assert YesNoScorer().score(record("1", "no"), " NO ").value == 0.0


def record(name: str, label: str, group: str = "random") -> Record:
    return Record(id=name, image=None, fields={}, target=label, group=group)


def figures(answers: list[tuple[str, str, str]]) -> dict[tuple[str, str], float | int | None]:
    scored = []
    for index, (group, label, text) in enumerate(answers):
        item = record(str(index), label, group)
        scored.append(Scored(record=item, text=text, score=YesNoScorer().score(item, text)))
    return {(metric.group, metric.name): metric.value for metric in YesNoScorer().summarize(scored)}


def test_degenerate_answers_give_none_where_the_script_divides_by_zero() -> None:
    labels = ["yes", "no", "yes", "no"]
    all_no = figures([("random", label, "no") for label in labels])
    assert all_no["random", "precision"] is None
    assert all_no["random", "f1"] is None
    assert all_no["mean", "f1"] is None
    assert (all_no["random", "recall"], all_no["random", "accuracy"], all_no["random", "yes_ratio"]) == (0.0, 0.5, 0.0)
    empty = figures([("random", label, "") for label in labels])
    assert (empty["random", "recall"], empty["random", "precision"], empty["random", "no_answer"]) == (1.0, 0.5, 4)
    all_yes = figures([("random", label, "Yes") for label in labels])
    assert all_yes["random", "f1"] == pytest.approx(2 / 3)
    assert figures([]) == {}


answers = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no", "NO", "", "hm"])
    )
)


@given(answers, st.randoms())
def test_counts_add_up_and_order_does_not_matter(items: list[tuple[str, str, str]], chance: object) -> None:
    ours = figures(items)
    for group in {group for group, _, _ in items}:
        members = [(label, parse_pope(text)) for g, label, text in items if g == group]
        counts = {name: ours[group, name] for name in ("TP", "TN", "FP", "FN")}
        assert sum(value or 0 for value in counts.values()) == len(members)
        assert counts["TP"] == members.count(("yes", "yes"))
        assert ours[group, "accuracy"] == pytest.approx(sum(a == b for a, b in members) / len(members))
    shuffled = list(items)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert figures(shuffled) == pytest.approx(ours)
