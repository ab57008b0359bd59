"""From what a model said to the letter of an option: the official rule of each benchmark, and a robust one.

Every rule takes the raw text and the options (letter -> text, in order) and returns a letter, or "" where it finds
none. The official rules keep their flaws on purpose; `lenient` is what a human reader would have understood, and its
accuracy is reported next to the official one. Rules: shared facts of the release scripts of LLaVA (ScienceQA),
VLMEvalKit (MMBench), MMStar, lmms-eval (AI2D) and the SEED-Bench leaderboard; ``_released`` is what the first CoLLaVO
release did.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping

Options = Mapping[str, str]
Rule = Callable[[str, Options], str]

UNSURE = "Z"
"""What VLMEvalKit calls a refusal: an answer, but to none of the options."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_VERBOSE = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_LAST_TOKENS = 4
_LEADING_CAPITAL = re.compile(r"\s*([A-Z])\.")
_OPENING = re.compile(r"(?:\(|option |the answer is )(.)")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def scienceqa(text: str, options: Options) -> str:
    """The letter alone; or "B. ..."; or "The answer is B" with one more character, said exactly once.

    The letter may lie beyond the options; it is then simply not the right one.
    """
    if len(text) == 1 and text in "ABCDE":
        return text
    if text[:1] in tuple("ABCDE") and text[1:3] == ". ":
        return text[0]
    said = _SENTENCE.findall(text)
    return str(said[0]) if len(said) == 1 else ""


def scienceqa_released(text: str, options: Options) -> str:
    """As `scienceqa`, on the stripped text."""
    return scienceqa(text.strip(), options)


def seed(text: str, options: Options) -> str:
    """The text is the letter and nothing else."""
    return text if text in options else ""


def seed_released(text: str, options: Options) -> str:
    """The stripped text is the letter and nothing else."""
    return seed(text.strip(), options)


def first_letter(text: str, options: Options) -> str:
    """The first character of the stripped text, in either case (lmms-eval's rule for SEED-Bench)."""
    letter = text.strip()[:1].upper()
    return letter if letter in options else ""


def ai2d(text: str, options: Options) -> str:
    """The text is the letter, in either case and with any ASCII punctuation, or begins with "B." (lmms-eval's rule)."""
    leading = _LEADING_CAPITAL.match(text)
    said = leading[1] if leading else text.translate(_ASCII_PUNCTUATION)
    return said.upper() if len(said) == 1 and said.upper() in options else ""


def ai2d_released(text: str, options: Options) -> str:
    """The first ASCII capital anywhere, "T" in "The answer is C"; where there is none, the release stopped."""
    capital = re.search("[A-Z]", text)
    return capital[0] if capital and capital[0] in options else ""


def ai2d_released_offline(text: str, options: Options) -> str:
    """Where the stripped text stands in "ABCDE": nothing at all is A, "BC" is B."""
    place = "ABCDE".find(text.strip())
    return list(options)[place] if 0 <= place < len(options) else ""


def mmbench(text: str, options: Options) -> str:
    """One option letter among the last words; else "answer is B"; else the only option whose text is contained.

    A refusal, or "Z" in place of a letter, gives `UNSURE`.
    """
    if any(refusal in text for refusal in _REFUSALS):
        return UNSURE
    tokens = text.translate(_SEPARATORS).split()
    said = [letter for letter in options if letter in tokens]
    if len(said) == 1 and tokens.index(said[0]) >= len(tokens) - _LAST_TOKENS:
        return said[0]
    if not said and UNSURE in tokens:
        return UNSURE
    sentence = _VERBOSE.search(text)
    if sentence and sentence[1].upper() in options:
        return sentence[1].upper()
    said_lower = text.lower()
    if len(said_lower) > 2 * sum(map(len, options.values())):  # spaces at the ends count, as in the official script
        return ""
    quoted = [letter for letter, option in options.items() if option.lower() in said_lower]
    return quoted[0] if len(quoted) == 1 else ""


def mmstar(text: str, options: Options) -> str:
    """The first character, or that after "(", "option " or "the answer is ", whatever the case; nothing further on."""
    said = text.lower().strip().replace("\n", " ")
    opening = _OPENING.match(said)
    letters = (said[:1].upper(), opening[1].upper() if opening else "")
    return next((letter for letter in letters if letter in options), "")


# --- the robust rule ------------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"\\(?:boxed|textbf|text|mathrm)\s*|[*_`$#{}<>|\"“”]")
_NEGATED = re.compile(
    r"(?:\b(?:not|neither|nor)|n't|不是|不选|并非)\s*(?:the\s+)?(?:options?|answers?|选项)?\s*\(?[A-Z]\)?(?![A-Za-z])"
)
_CUE = re.compile(
    r"(?:\b(?i:answer|option|choice|choose|select|pick)s?(?i:\s+(?:is|was|would\s+be|should\s+be))?"
    r"(?i:\s+(?:option|choice))?(?![a-z])|答案|选项|选择|选)(?:应该)?[是为]?\s*(?P<colon>[:=])?\s*"
    r"(?P<open>[(\[])?\s*(?P<letter>[A-Za-z])(?![A-Za-z0-9'])"
)
_LEADING = re.compile(r"[(\[]?\s*([A-Za-z])\s*(?:[)\].:;](?!\w\.)|\n|\s-\s|$)")
_LISTED = re.compile(r"(?<![A-Za-z])([A-Z])[).:]")
_STANDALONE = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")
_BEFORE_NOUN = re.compile(r"\s+(?!(?:because|since|as|is|was|and|or|for|due)\b)[a-z]")


def lenient(text: str, options: Options) -> str:
    """The letter a human reader would have understood: "(b)", "B. cat", "The answer is **B**.", "cat", "Ｂ", "答案是B".

    Several letters without a verdict between them ("A or B"), and a letter that is denied ("not B"), give nothing.
    """
    said = _words(text)
    exact = [letter for letter, option in options.items() if len(said) > 1 and _words(option) == said]
    if len(exact) == 1:
        return exact[0]
    plain = _NEGATED.sub(" ", _plain(text))
    lead = _LEADING.match(plain)
    if lead and lead[1].upper() in options and len(set(_LISTED.findall(plain)) & set(options)) <= 1:
        return lead[1].upper()
    cued = _cued(plain, options)
    if cued:
        return cued
    standing = {
        m[1] for m in _STANDALONE.finditer(plain) if m[1] in options and not _is_article(m[1], plain[m.end() :])
    }
    if len(standing) == 1:
        return standing.pop()
    return "" if standing else _contained(plain, options)


def _plain(text: str) -> str:
    """Full-width forms made ASCII, mark-up removed, ends trimmed."""
    return _MARKUP.sub("", unicodedata.normalize("NFKC", text)).replace("。", ".").replace("、", ".").strip()


def _words(text: str) -> str:
    """Case, punctuation and spacing removed, for comparing with an option's text; words stay apart by one space."""
    return " ".join(re.findall(r"\w+", _plain(text).casefold()))


def _is_article(letter: str, rest: str) -> bool:
    """Whether a letter is the article in front of a noun rather than the name of an option."""
    return letter in "aA" and _BEFORE_NOUN.match(rest) is not None


def _cued(text: str, options: Options) -> str:
    """The last letter that follows "answer is", "option", "答案" and the like."""
    verdict = ""
    for match in _CUE.finditer(text):
        letter, rest = match["letter"], text[match.end() :]
        # A capital in mid-sentence names an option ("the answer is A since ..."), after a colon it may start a phrase.
        starts_phrase = letter.islower() or match["colon"] is not None
        if match["open"] is None and (
            (starts_phrase and _is_article(letter, rest)) or (letter.islower() and re.match(r"\s+\w", rest))
        ):
            continue
        if letter.upper() in options:
            verdict = letter.upper()
    return verdict


def _contained(text: str, options: Options) -> str:
    """The only option whose text stands in the answer, where one option's text may be part of another's."""
    said = f" {_words(text)} "
    worded = {letter: _words(option) for letter, option in options.items()}
    found = {
        letter: option
        for letter, option in worded.items()
        if option and (f" {option} " in said or (not option.isascii() and option in said))
    }
    longest = [
        letter
        for letter, option in found.items()
        if not any(option != other and option in other for other in found.values())
    ]
    return longest[0] if len(longest) == 1 else ""


RULES: dict[str, Rule] = {
    "scienceqa": scienceqa,
    "scienceqa_released": scienceqa_released,
    "seed": seed,
    "seed_released": seed_released,
    "first_letter": first_letter,
    "ai2d": ai2d,
    "ai2d_released": ai2d_released,
    "ai2d_released_offline": ai2d_released_offline,
    "mmbench": mmbench,
    "mmstar": mmstar,
    "lenient": lenient,
}
