"""The strings around a question, exactly as the released model was trained and evaluated with them.

The golden strings of the fixtures are the rule, spaces and line breaks included.
"""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM = "AI assistant should give helpful and detailed answers to user after fully understanding an image."
IMAGE_TAG = "<image>"
START_TAG, STOP_TAG = "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"
NO_OBJECTS = "None of detailed object information for image. "


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a conversation is written.

    Attributes:
        name: part of a run's identity.
        user: stands before the user's turn.
        assistant: stands between the user's turn and the reply.
        end: stands after the reply.
    """

    name: str
    user: str
    assistant: str
    end: str

    def parts(
        self, objects: str | None, question: str, *, with_objects: bool = True, system: str = SYSTEM
    ) -> tuple[str, str]:
        """A whole prompt, cut where the question begins.

        Args:
            objects: the image's object list, "" where nothing was found; None for a question without an image.
            question: the user's text.
            with_objects: False leaves the sentence on the objects out, for questions whose answer it would give away.
            system: the first sentence; training data may have one of its own.
        Returns: everything before the question (the same for all questions on an image), and the rest.
        """
        if objects is None:
            return f"{system} {self.user}", question + self.assistant
        sentence = f"The image includes {objects}. " if objects else NO_OBJECTS
        return f"{system} {IMAGE_TAG} {self.user}{sentence if with_objects else ''}", question + self.assistant

    def prompt(self, objects: str | None, question: str, *, with_objects: bool = True, system: str = SYSTEM) -> str:
        """A whole prompt; see `parts`."""
        return "".join(self.parts(objects, question, with_objects=with_objects, system=system))

    def next_turn(self, question: str) -> str:
        """What follows the end of a reply when the user goes on asking."""
        return self.user + question + self.assistant


CHAT = Template(
    name="chat",
    user=f"{START_TAG}user\n",
    assistant=f"{STOP_TAG}\n{START_TAG}assistant\n",
    end=f"{STOP_TAG}\n",
)
"""InternLM2's chat format: evaluation and training."""

DEMO = Template(name="demo", user="USER: ", assistant=" ASSISTANT:", end=STOP_TAG)
"""The released demo's format."""


TEMPLATES = {template.name: template for template in (CHAT, DEMO)}
"""All templates, by the names under which checkpoints record them."""


def reply_text(generated: str) -> str:
    """The reply in what was generated after a prompt: everything before the end tag, without surrounding space."""
    return generated.partition(STOP_TAG)[0].strip()
