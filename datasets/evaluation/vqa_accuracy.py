"""TextVQA and its kin: agreement with ten human answers, after the VQA normalisation.

Source: the M4C evaluator (EvalAI answer processor), with its quirks: the text decides once, before any replacement,
whether a punctuation mark is deleted or becomes a space; at most 32 periods go. A record's target is the list of
human answers (None where they are withheld).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from configs.common.words import quoted, shown

from ..registration.formats.files import MalformedError
from ..types import DataError, Metric, Record, Score, Scored
from .parsing import targets
from .statistics import rates

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_THOUSANDS = re.compile(r"\d,\d")
_MAX_PERIODS = 32
_FULL_AGREEMENT = 3
_FEWEST = 2
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
# Spelled with every apostrophe; each is also recognised with one apostrophe left out.
_CONTRACTED = re.findall(
    r"\S+",
    """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'd've y'all'll you'd you'd've you'll you're you've
""",
)
_CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED for at, character in enumerate(word) if character == "'"
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the table has this one the wrong way round


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to report.

    Attributes:
        by: names in a record's ``meta`` to report separately by.
    """

    by: tuple[str, ...] = ()


@functools.lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """The form in which answers are compared: lower case, no articles, digits for small numbers, little punctuation."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    words = [_NUMBERS.get(word, word) for word in without_punctuation(text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(text: str) -> str:
    """Delete the marks that stand next to a space somewhere in the text, and periods; put a space for the others."""
    grouped = _THOUSANDS.search(text) is not None
    loose = {mark for mark in _PUNCTUATION if grouped or f"{mark} " in text or f" {mark}" in text}
    text = text.translate({ord(mark): None if mark in loose else " " for mark in _PUNCTUATION})
    return _PERIOD.sub("", text, count=_MAX_PERIODS)


def agreement(answer: str, answers: Sequence[str]) -> float:
    """Mean over the annotators of min(1, matches among the *other* annotators / 3), on normalised texts."""
    matches = Counter(answers)[answer]
    num = len(answers)
    hit, miss = min(1.0, (matches - 1) / _FULL_AGREEMENT), min(1.0, matches / _FULL_AGREEMENT)
    # Summed one by one, in the annotators' order, so that the last bit equals the official script's too.
    return sum(hit if other == answer else miss for other in answers) / num if matches else 0.0


def prepare(record: Record, options: Options) -> Record:
    """The record with a list of human answers as its target.

    Raises:
        MalformedError: there is one alone, which agrees with no other, or one is no text.
    """
    return targets.with_target(record, _humans)


def _humans(value: object) -> list[str]:
    answers = targets.accepted(value)
    if len(answers) < _FEWEST:
        raise MalformedError(
            f"'answer' should be a list of several people's answers, got {value!r}: VQA accuracy is agreement with the "
            "others, which one alone cannot give; for one answer there are exact_match and relaxed"
        )
    return answers


def own_reply(record: Record, options: Options) -> str:
    """The human answer that most agree on."""
    forms = [normalise(str(human)) for human in record.target]
    return max(map(str, record.target), key=lambda human: agreement(normalise(human), forms))


def highest(record: Record, options: Options) -> float:
    """The credit of the answer that most agree on, which ten different answers keep below 1."""
    forms = [normalise(str(human)) for human in record.target]
    return max(agreement(form, forms) for form in forms)


def credits_empty(record: Record, options: Options) -> bool:
    """Whether an annotator's answer, such as "a", is nothing once it is normalised; the rule then equals it to none."""
    return any(not normalise(str(human)) for human in record.target)


def score(record: Record, text: str, options: Options) -> Score:
    """Normalise the text and measure its agreement with the human answers."""
    answer = normalise(text)
    if record.target is None:
        return Score(value=None, extracted=answer, no_answer=not answer)
    if isinstance(record.target, str) or not record.target:
        raise DataError(
            f"record {shown(record.id)}: VQA accuracy needs a list of human answers, got {quoted(record.target)}"
        )
    value = agreement(answer, [normalise(str(human)) for human in record.target])
    return Score(value=value, extracted=answer, no_answer=not answer)


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Mean agreement over all answered questions, and by each declared key."""
    return [
        rates.accuracy(scored),
        *rates.table(scored, options.by),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]
