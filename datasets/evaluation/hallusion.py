"""HallusionBench: accuracy over questions, question pairs and figures, easy and hard, and what goes wrong.

A *question pair* is one question about all figures of its set, a *figure* all questions about it: either is right if
all of its answers are. A question without an image (category VS, figure 0) may also be answered with "I do not know".
Rules (``rule`` in the declaration):

- ``hallusion``: the official figures. A judge decides whether an answer is right, wrong or unclear; without one the
  words do (yes and not no, no and not yes, else unclear), as VLMEvalKit reads them.
- ``hallusion_vlmevalkit``: VLMEvalKit's figures: questions with an image only (951, of 455 pairs and 346 figures),
  unclear is wrong; also by category and subcategory together (``VD_ocr``), its table's ``l2-category``.
- ``hallusion_released``: what the first CoLLaVO release did: "yes" anywhere in the text, plain accuracy, images only.

The first two also report ``average``, the mean of aAcc, fAcc and qAcc, by which leaderboards order models.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from configs.common.words import quoted, shown

from ..types import DataError, Metric, Record, Score, Scored
from . import hallusion_errors
from .base import JudgedScorer
from .hallusion_errors import ThreeWayScore
from .judges import correctness
from .judges.base import Request, UnjudgedScore, question_of
from .judges.correctness import CORRECT, DIFFERENT, INCORRECT, SAME, UNCLEAR
from .parsing import targets
from .statistics import rates
from .vqa_accuracy import without_punctuation

_WORDS = {INCORRECT: "incorrect", CORRECT: "correct", UNCLEAR: "unclear"}
_SET = ("category", "subcategory", "set_id")

_PLACE = (*_SET, "figure_id", "question_id", "visual_input")
"""What a record's ``meta`` must say of it."""


@dataclass(frozen=True, kw_only=True)
class HallusionScorer(JudgedScorer):
    """HallusionBench's rules.

    Attributes:
        rule: see the top of the file.
        attribution: also ask the judge whether each answer agrees with the one about figure 0, which splits errors into
            language hallucination and visual illusion; one more request per question about another figure.
    """

    offline: ClassVar[str] = "yes and no by their words, as VLMEvalKit reads them"

    rule: Literal["hallusion", "hallusion_vlmevalkit", "hallusion_released"] = "hallusion"
    attribution: bool = False

    def unit(self, record: Record) -> str:
        """The set: its figures share questions, and its questions share figures."""
        return "/".join(str(record.meta.get(key, record.id)) for key in _SET)

    def grouped_by(self) -> tuple[str, ...]:
        """Names in ``meta`` that figures are reported by."""
        return ("category", "subcategory")

    def prepare(self, record: Record) -> Record:
        """The record with ``yes`` or ``no`` as its target, and its place in its set as texts.

        Raises:
            MalformedError: the target is neither, or a part of the place is missing.
        """
        targets.need(record, "hallusion", *_PLACE)
        place = {name: targets.whole(record.meta[name], name) for name in _PLACE}
        found = targets.with_target(targets.with_meta(record, place), targets.yes_no)
        return found if "reference" in record.meta else targets.with_meta(found, {"reference": str(found.target or "")})

    def own_reply(self, record: Record) -> str:
        """The label."""
        return str(record.target)

    def credits_empty(self, record: Record) -> bool:
        """Not to know is right where there is no image to know it from; the release read "no" where nothing is said."""
        return record.target == "no" if self.rule == "hallusion_released" else _blind(record)

    def own_verdict(self, record: Record, part: str) -> str:
        """What a judge says of a right answer, and of two that agree."""
        return "same" if part == "same" else "correct"

    def score(self, record: Record, text: str) -> Score:
        """Read yes or no by the rule and compare it with the label."""
        said = read_released(text) if self.rule == "hallusion_released" else read_words(text)
        if record.target is None:
            return Score(value=None, extracted=said, no_answer=not said)
        verdict = UNCLEAR if not said else CORRECT if said == record.target else INCORRECT
        value = _credit(record, verdict) if self.rule == "hallusion" else float(verdict == CORRECT)
        return ThreeWayScore(value=value, extracted=said, no_answer=not read_words(text), verdict=verdict)

    def unused(self) -> str:
        """Every rule but the official one decides without a judge."""
        return "" if self.rule == "hallusion" else f"by the rule '{self.rule}'"

    def judged(self, record: Record, text: str, verdicts: Mapping[str, str]) -> Score:
        """Take the judge's verdict; a rule other than the official one has no use for it."""
        if self.unused():
            return self.score(record, text)
        verdict, same = verdicts.get("correctness"), verdicts.get("same", "")
        said = read_words(text)
        if verdict is None:
            return UnjudgedScore(extracted=said, no_answer=not text.strip())
        if verdict not in _WORDS or same not in ("", SAME, DIFFERENT):
            raise DataError(
                f"record {shown(record.id)}: 'correctness' is 0, 1 or 2, 'same' is 0 or 1; got {quoted(dict(verdicts))}"
            )
        return ThreeWayScore(
            value=_credit(record, verdict),
            extracted=said,
            no_answer=not text.strip(),
            explanation=f"judge: {_WORDS[verdict]}",
            verdict=verdict,
            same=same,
        )

    def requests(self, answers: Iterable[tuple[Record, str]]) -> Iterator[Request]:
        """Is each answer right, and (``attribution``) does it agree with the one about figure 0?"""
        if self.unused():
            return
        given = list(answers)
        for record, text in given:
            yield correctness.correctness(record.id, question_of(record), record.meta["reference"], text)
        if self.attribution:
            original = {_pair(record): text for record, text in given if record.meta["figure_id"] == "0"}
            for record, text in given:
                if record.meta["figure_id"] != "0" and _pair(record) in original:
                    yield correctness.agreement(record.id, text, original[_pair(record)])

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """The figures over all questions and over each category."""
        counted = scored if self.rule == "hallusion" else [s for s in scored if s.record.image is not None]
        metrics = [metric for group, members in _groups(counted, self.rule) for metric in self._figures(members, group)]
        return [*metrics, rates.no_answer(counted), *rates.unscored(counted)]

    def _figures(self, scored: Sequence[Scored], group: str) -> list[Metric]:
        accuracy = rates.accuracy(scored, name="aAcc", group=group)
        if self.rule == "hallusion_released":
            return [accuracy]
        pairs = _complete(scored, lambda s: _pair(s.record))
        seen = [s for s in scored if not _blind(s.record)]
        figures = _complete(seen, lambda s: _key(s.record, (*_SET, "figure_id")))
        metrics = [accuracy, _all_right("qAcc", pairs, group), _all_right("fAcc", figures, group)]
        metrics.append(_average(scored, figures, pairs, group))
        if self.rule == "hallusion_vlmevalkit":
            return metrics
        easy = [s for s in scored if s.record.meta["visual_input"] != "2"]
        hard = [s for s in scored if s.record.meta["visual_input"] == "2"]
        return [
            *metrics,
            _all_right("easy_aAcc", _complete(easy, lambda s: _pair(s.record)), group),
            _all_right("hard_aAcc", _complete(hard, lambda s: _pair(s.record)), group),
            *_shares(figures, group),
            *hallusion_errors.bias(scored, group),
            *hallusion_errors.attribution(scored, _checks(scored), group),
        ]


def read_words(text: str) -> str:
    """``yes`` or ``no`` if the text holds that word and not the other, else ""."""
    words = without_punctuation(text.lower()).split()
    said = [word for word in ("yes", "no") if word in words]
    return said[0] if len(said) == 1 else ""


def read_released(text: str) -> str:
    """``yes`` if these letters stand anywhere in the text, be it in "eyes", else ``no``."""
    return "yes" if "yes" in text.lower() else "no"


def _credit(record: Record, verdict: str) -> float:
    """1 for a right answer, and for not knowing where there is no image to know it from."""
    return float(verdict == CORRECT or (verdict == UNCLEAR and _blind(record)))


def _blind(record: Record) -> bool:
    return bool(record.meta["category"] == "VS" and record.meta["figure_id"] == "0")


def _groups(scored: Sequence[Scored], rule: str) -> Iterator[tuple[str, Sequence[Scored]]]:
    """All, then each category, then (VLMEvalKit) each subcategory of each."""
    yield "", scored
    yield from rates.by_meta(scored, "category").items()
    if rule == "hallusion_vlmevalkit":
        yield from rates.split_by(scored, _subcategory).items()


def _subcategory(item: Scored) -> str:
    """As VLMEvalKit's table names it, e.g. ``VD_ocr``."""
    return f"{item.record.meta['category']}_{item.record.meta['subcategory']}"


def _checks(scored: Sequence[Scored]) -> dict[str, ThreeWayScore]:
    return {s.record.id: s.score for s in scored if isinstance(s.score, ThreeWayScore)}


def _pair(record: Record) -> Hashable:
    return _key(record, (*_SET, "question_id"))


def _key(record: Record, names: Sequence[str]) -> Hashable:
    return tuple(record.meta[name] for name in names)


_Groups = Mapping[Hashable, Sequence[Scored]]


def _complete(scored: Sequence[Scored], key: Callable[[Scored], Hashable]) -> _Groups:
    """Groups of verdicts; one with an unscored member is left out, it is neither right nor wrong."""
    groups: dict[Hashable, list[Scored]] = {}
    for item in scored:
        groups.setdefault(key(item), []).append(item)
    return {name: members for name, members in groups.items() if all(s.score.value is not None for s in members)}


def _share(members: Sequence[Scored]) -> float:
    return sum(s.score.value or 0.0 for s in members) / len(members)


def _mean(name: str, values: Sequence[float], groups: _Groups, group: str) -> Metric:
    """A mean over groups; those of one set are not independent."""
    clusters = [_key(members[0].record, _SET) for members in groups.values()]
    return rates.mean(name, values, clusters=clusters, group=group)


def _all_right(name: str, groups: _Groups, group: str) -> Metric:
    return _mean(name, [float(_share(members) == 1.0) for members in groups.values()], groups, group)


def _average(scored: Sequence[Scored], figures: _Groups, pairs: _Groups, group: str) -> Metric:
    """The mean of aAcc, fAcc and qAcc; all that is asked about one set is one cluster."""
    each = [(s.score.value, _key(s.record, _SET)) for s in scored if s.score.value is not None]
    whole = [
        [(float(_share(members) == 1.0), _key(members[0].record, _SET)) for members in groups.values()]
        for groups in (figures, pairs)
    ]
    return replace(rates.mean_of_groups("average", [each, *whole], group=group), num=len(each))


def _shares(figures: _Groups, group: str) -> list[Metric]:
    """Figures with some right answers, with none, and the mean share of right answers."""
    shares = [_share(members) for members in figures.values()]
    return [
        _mean("fig_inconsistent", [float(0.0 < share < 1.0) for share in shares], figures, group),
        _mean("fig_wrong", [float(share == 0.0) for share in shares], figures, group),
        _mean("fig_score", shares, figures, group),
    ]
