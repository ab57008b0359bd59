"""The words of the tiny model: what changes from question to question is a piece, and so is all that stands between.

A question is then a handful of tokens, and the word for a class is the same token in a question and in an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from collavo.template import SYSTEM
from modeling.segmenters.coco import display_name

from ..world import COLOURS, STUFF, THINGS
from ..world.facts import CORNERS
from ..world.glyphs import WORDS
from ..world.scenes import GROUPS
from ..world.wording import plural

_PLACES = ("left", "right", "top", "bottom", *CORNERS)
COORDINATES = tuple(f"{n / 100:.2f}" for n in range(101))
CONTENT = (
    *(display_name(name) for name in (*THINGS, *STUFF)),
    *(plural(name) for name in THINGS),
    *(*COLOURS, *GROUPS, *WORDS, *_PLACES, *COORDINATES, "Yes", "No", "A", "B", "C", "D"),
    *(str(n) for n in range(21)),
)
"""Words that questions are about and that answers consist of."""

_LONGEST_FIRST = sorted(map(re.escape, CONTENT), key=len, reverse=True)
_SPLIT = re.compile(rf"([\n ][A-D]\. |(?<![\w.])(?:{'|'.join(_LONGEST_FIRST)})(?![\w]|\.\d))")
"""Letters of options stay with what is around them: a letter is then one token away from its option."""

_RARE = 3


def pieces(texts: Iterable[str]) -> Sequence[str]:
    """Pieces of a vocabulary.

    Args:
        texts: questions and answers.
    Returns: the content words, and what the texts have between them, but for what hardly ever occurs.
    """
    between: Counter[str] = Counter()
    for text in texts:
        parts = _SPLIT.split(text)
        between.update(part for part in parts[::2] if part)
        between.update(part for part in parts[1::2] if part not in CONTENT)
    frame = (f"{SYSTEM} ", " ", *(part + "\n" for part in ("user", "assistant")), "\n")
    common = [part for part, count in sorted(between.items()) if count >= _RARE]
    words = {word for part in between for word in re.findall(r" ?[^\W\d]+|[^\w\s]", part)}
    return tuple(dict.fromkeys((*CONTENT, *frame, *common, *sorted(words))))
