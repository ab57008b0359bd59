"""What a long answer comes to, as MathVista needs it before scoring; the wording is ours."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Request

NOTHING = "none"
_FORMS = {
    "text": "the option that it chooses, as its letter or its text",
    "integer": "one whole number, in digits, without unit",
    "float": "one decimal number, in digits, without unit",
    "list": "one list in square brackets, like [1, 2, 3]",
}
_EXAMPLES = (
    (
        "How many birds sit on the wire?",
        (),
        "integer",
        "Three of them sit there, the fourth one flies, so 3 birds.",
        "3",
    ),
    ("What is the length of side a?", (), "float", "By the theorem, a = sqrt(2) = 1.414, about 1.4 cm.", "1.4"),
    ("Which bar is the highest?", ("red", "blue"), "text", "Comparing both, (B) is higher.", "B"),
    ("Between which years was it built?", (), "list", "They began in 1901 and ended in 1907.", "[1901, 1907]"),
    ("How many apples are left?", (), "integer", "I cannot see the picture well enough.", NOTHING),
)
_PROMPT = """\
A model answered a question about an image. Copy out what its answer comes to, in the form that is asked for. Do not \
solve the question and do not correct the answer. If it commits to nothing, write {nothing}.

{examples}
{task}
Extracted:"""


def request(record: str, question: str, choices: Sequence[str], answer_type: str, answer: str) -> Request:
    """Ask for the answer in a model's text.

    Args:
        record: id of the record.
        question: the problem.
        choices: of a multiple-choice problem; otherwise empty.
        answer_type: ``text``, ``integer``, ``float`` or ``list``.
        answer: the model's text.
    """
    examples = "\n".join(
        f"{_task(asked, options, kind, said)}\nExtracted: {result}\n"
        for asked, options, kind, said, result in _EXAMPLES
    )
    return Request(
        record=record,
        part="verdict",
        prompt=_PROMPT.format(
            nothing=NOTHING, examples=examples, task=_task(question.strip(), choices, answer_type, answer.strip())
        ),
        parse=parse,
        reminder=f"Reply with the extracted answer alone, on one line, or with {NOTHING}.",
        max_tokens=64,
    )


def parse(reply: str) -> str | None:
    """The extracted answer, "" where the judge found none in the text; None for a reply that is no single line."""
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    said = lines[0].removeprefix("Extracted:").strip()
    if len(said) > 1 and said[0] == said[-1] and said[0] in "\"'`":
        said = said[1:-1]
    return "" if said.lower().rstrip(".") == NOTHING else said or None


def _task(question: str, choices: Sequence[str], answer_type: str, answer: str) -> str:
    options = "".join(f"({chr(ord('A') + i)}) {choice}\n" for i, choice in enumerate(choices))
    return f"Question: {question}\n{options}Form: {_FORMS[answer_type]}\nAnswer: {answer}"
