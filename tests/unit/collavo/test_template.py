"""Templates: what stands around a question, letter by letter, and what of a generation is the reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collavo.template import CHAT, DEMO, STOP_TAG, Template, reply_text

SYSTEM = "AI assistant should give helpful and detailed answers to user after fully understanding an image."
OBJECTS = "(#1 dog) [0.00, 0.16, 0.29, 0.88]"
NONE_FOUND = "None of detailed object information for image. "


@pytest.mark.parametrize(
    ("objects", "told"), [(OBJECTS, f" <image> [UNUSED_TOKEN_146]user\nThe image includes {OBJECTS}. "),
                          ("", f" <image> [UNUSED_TOKEN_146]user\n{NONE_FOUND}"),
                          (None, " [UNUSED_TOKEN_146]user\n")],
)  # fmt: skip
def test_the_chat_template(objects: str | None, told: str) -> None:
    wanted = f"{SYSTEM}{told}Is it?\nYes or no.[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n"
    assert CHAT.prompt(objects, "Is it?\nYes or no.") == wanted


@pytest.mark.parametrize(
    ("objects", "told"), [(OBJECTS, f" <image> USER: The image includes {OBJECTS}. "),
                          ("", f" <image> USER: {NONE_FOUND}"),
                          (None, " USER: ")],
)  # fmt: skip
def test_the_demo_template(objects: str | None, told: str) -> None:
    assert DEMO.prompt(objects, "Is it?") == f"{SYSTEM}{told}Is it? ASSISTANT:"


@pytest.mark.parametrize("template", [CHAT, DEMO])
def test_a_question_can_be_asked_without_telling_the_objects(template: Template) -> None:
    for objects in (OBJECTS, ""):
        told = f"The image includes {OBJECTS}. " if objects else NONE_FOUND
        assert template.prompt(objects, "Is it?", with_objects=False) == template.prompt(objects, "Is it?").replace(
            told, ""
        )
    assert template.prompt(None, "Is it?", with_objects=False) == template.prompt(None, "Is it?")
    assert template.prompt(OBJECTS, "Is it?").endswith(template.next_turn("Is it?").removeprefix(template.user))
    assert template.prompt(None, "Is it?") == f"{SYSTEM} {template.next_turn('Is it?')}"


@given(st.sampled_from([CHAT, DEMO]), st.none() | st.sampled_from(["", OBJECTS]), st.text())
def test_all_questions_on_an_image_begin_alike(template: Template, objects: str | None, question: str) -> None:
    before, after = template.parts(objects, question)
    assert before + after == template.prompt(objects, question)
    assert before == template.parts(objects, "another")[0]
    assert after == question + template.assistant
    assert before.count("<image>") == (objects is not None)


@pytest.mark.parametrize(
    ("generated", "reply"),
    [
        ("Yes", "Yes"),
        (" Yes\n", "Yes"),
        (f"Yes{STOP_TAG}\n", "Yes"),
        (f"Yes {STOP_TAG} No{STOP_TAG}", "Yes"),
        (STOP_TAG, ""),
        ("", ""),
        ("two\n\nlines", "two\n\nlines"),
        ("[UNUSED_TOKEN_146]assistant\nYes", "[UNUSED_TOKEN_146]assistant\nYes"),
        ("USER: x ASSISTANT: y", "USER: x ASSISTANT: y"),
    ],
)
def test_the_reply_ends_at_the_end_tag_and_nowhere_else(generated: str, reply: str) -> None:
    """The reference also cut at the assistant's tag, and so lost replies that contain it."""
    assert reply_text(generated) == reply
