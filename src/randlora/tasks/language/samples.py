"""What every row becomes: a text, a prompt with its completion, a conversation or a preference."""

from dataclasses import dataclass
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]
"""`role` and `content`, and whatever else the chat template reads (`tool_calls`, `name`)."""

WEIGHT = "weight"
"""Key of a message, as OpenAI's fine-tuning has it: a turn of the assistant with 0 is read and not learned."""


@dataclass(frozen=True)
class Text:
    """A text that is learned from its first token to its last."""

    text: str


@dataclass(frozen=True)
class Completion:
    """A text to begin with, and the text that is learned after it; nothing is put between them."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Conversation:
    """Messages for the tokenizer's chat template.

    Attributes:
        messages: A system message or none, then a user's and the assistant's in turn, the assistant's last; of a prompt
            to answer, without that.
        given: The number of messages, counted from the first, that are the prompt: no turn in them is learned.
        tools: Tools that the template may describe to the model, as JSON schemas.
        options: What else the template is told, for example `enable_thinking`.
    """

    messages: list[Message]
    given: int = 0
    tools: list[Any] | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Preference:
    """A prompt with the better and the worse answer to it: three texts, or three lists of messages.

    `tools` and `options` are for the template, see `Conversation`.
    """

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    tools: list[Any] | None = None
    options: dict[str, Any] | None = None


Sample: TypeAlias = Text | Completion | Conversation | Preference

Located: TypeAlias = tuple[str, Sample]
"""A sample behind the place it comes from (file and row), which messages about it begin with."""
