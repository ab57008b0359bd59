"""Facts in words: English, and Chinese for the benchmark that has both."""

from __future__ import annotations

from .facts import Fact

_ENGLISH = {
    "existence": "Is there {a0} in the image?",
    "present": "Which of these is in the image?",
    "count": "How many {many0} are in the image?",
    "sum": "How many {many0} and {many1} are in the image in all?",
    "more": "Are there more {many0} than {many1} in the image?",
    "colour": "What color is the {0}?",
    "side": "Is the {0} on the left or on the right side of the image?",
    "height": "Is the {0} at the top or at the bottom of the image?",
    "corner": "In which part of the image is the {0}?",
    "relation": "Is the {0} to the left or to the right of the {1}?",
    "beside": "Which of these is to the left of the {0}?",
    "nearest": "Which of these is closest to the {0}?",
    "text": "What does the sign say?",
    "scene": "What kind of place does the image show?",
}
_CHINESE = {
    "present": "图中有下列哪一种物体？",
    "count": "图中有几个{0}？",
    "sum": "图中{0}和{1}一共有几个？",
    "colour": "{0}是什么颜色的？",
    "corner": "{0}在图中的哪个位置？",
    "relation": "{0}在{1}的哪一边？",
    "beside": "下列哪一种物体在{0}的左边？",
    "text": "牌子上写着什么？",
    "scene": "图中是什么样的地方？",
}
_CHINESE_NAMES = {
    **{"person": "人", "car": "汽车", "bus": "公共汽车", "boat": "船", "stop sign": "牌子", "bird": "鸟", "cat": "猫"},
    **{"dog": "狗", "umbrella": "雨伞", "kite": "风筝", "bottle": "瓶子", "cup": "杯子", "apple": "苹果"},
    **{"chair": "椅子", "clock": "时钟", "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色"},
    **{"blue": "蓝色", "purple": "紫色", "white": "白色", "black": "黑色", "left": "左边", "right": "右边"},
    **{"top left": "左上方", "top right": "右上方", "bottom left": "左下方", "bottom right": "右下方"},
    **{"street": "街道", "open air": "野外", "indoor": "室内"},
}
_PLURALS = {"person": "people", "bus": "buses"}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def plural(name: str) -> str:
    """A class's name for several of it."""
    return _PLURALS.get(name, f"{name}s")


def with_article(name: str) -> str:
    """A class's name after ``a`` or ``an``."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def ask(fact: Fact) -> str:
    """The question of a fact."""
    names: dict[str, str] = {}
    for index, name in enumerate(fact.about):
        names |= {f"a{index}": with_article(name), f"many{index}": plural(name)}
    return _ENGLISH[fact.kind].format(*fact.about, **names)


def ask_chinese(fact: Fact) -> str:
    """The question of a fact of the kinds that the Chinese benchmark has."""
    return _CHINESE[fact.kind].format(*map(chinese, fact.about))


def chinese(answer: str) -> str:
    """An answer in Chinese; numbers and texts of signs stay as they are."""
    return _CHINESE_NAMES.get(answer, answer)


def digit_in_letters(digit: str) -> str:
    """A digit in letters."""
    return _DIGITS[int(digit)]
