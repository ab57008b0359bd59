"""A grade between 0 and 1 for an answer, as MM-Vet gives it; the wording is ours.

Reference answers may hold ``<AND>`` (all elements are needed) and ``<OR>`` (any one is enough). MM-Vet's own evaluator
counts an answer that its judge did not grade as 0; here it stays without a grade.
"""

from __future__ import annotations

import re

from .base import Request

_NUMBER = re.compile(r"(?<![\w.,-])(?:0(?:\.\d+)?|1(?:\.0+)?|\.\d+)(?![\w,]|\.\d)")
_EXAMPLES = (
    ("Which two fruits are on the plate?", "apple <AND> pear", "There is an apple.", "0.5"),
    ("Which two fruits are on the plate?", "apple <AND> pear", "An apple and a pear.", "1.0"),
    ("How much is the bus ticket?", "3 euros <OR> 3.00 <OR> three euros", "It costs 3.00 EUR.", "1.0"),
    ("How much is the bus ticket?", "3 euros <OR> 3.00 <OR> three euros", "It costs 5 euros.", "0.0"),
    (
        "Why do people laugh about the picture?",
        "The cat wears a tie and sits at the desk like a manager, with a cup that says boss.",
        "A cat sits at a desk.",
        "0.3",
    ),
)
_PROMPT = """\
You grade how well a model answered a question about an image that you cannot see. You are given the question, the \
reference and the model's answer. Grade from 0.0 (nothing of the reference is there, or it is contradicted) to 1.0 \
(all of it is there), in steps of 0.1. In a reference, <AND> joins elements that must all be there for 1.0, with part \
of the credit for some of them; <OR> joins alternatives of which one suffices. How the answer is worded does not matter.

{examples}
Question: {question}
Reference: {reference}
Answer: {answer}
Grade:"""


def request(record: str, run: int, question: str, reference: str, answer: str) -> Request:
    """Ask for the grade of one answer.

    Args:
        record: id of the record.
        run: number of the grading, from 1; several are averaged.
        question: as the model was asked.
        reference: the right answer.
        answer: the model's text.
    """
    return Request(
        record=record,
        part=f"run{run}",
        prompt=_PROMPT.format(
            examples="\n".join(map(_example, _EXAMPLES)),
            question=question.strip(),
            reference=_spaced(reference),
            answer=answer.strip(),
        ),
        parse=parse,
        reminder="Reply with the grade alone, one number from 0.0 to 1.0.",
        max_tokens=16,
    )


def parse(reply: str) -> str | None:
    """The only number from 0 to 1 in a reply; None if there is none, or several different ones."""
    first = reply.split()[:1]
    found = {float(word) for word in first if _NUMBER.fullmatch(word)} or {float(n) for n in _NUMBER.findall(reply)}
    return repr(found.pop()) if len(found) == 1 else None


def _example(example: tuple[str, str, str, str]) -> str:
    question, reference, answer, grade = example
    return f"Question: {question}\nReference: {reference}\nAnswer: {answer}\nGrade: {grade}\n"


def _spaced(reference: str) -> str:
    return reference.strip().replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
