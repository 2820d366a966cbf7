"""A tokenizer's chat template, and what it makes of messages."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from randlora.errors import DataError
from randlora.tasks.language.samples import Message

Span = tuple[int, int]
"""First character, and the one after the last."""

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: One with a chat template.
        where: The place of the messages, for the message of an error.
        tools: Tools that the template may describe.
        options: What else it is told, for example `enable_thinking`.
        source: Another template than the tokenizer's own.

    Raises:
        DataError: The tokenizer has no chat template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        where: str,
        tools: list[Any] | None = None,
        options: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> None:
        try:
            self._source: str = tokenizer.get_chat_template(source, tools=tools)
        except ValueError as error:
            raise DataError(
                where,
                expected="a tokenizer with a chat template, as this is a conversation",
                got="one without",
                hint="set chat_template_path, or take a model that was tuned for chat",
            ) from error
        self._where, self._tools = where, tools
        self._variables = {**tokenizer.special_tokens_map, **(options or {})}

    @property
    def marked(self) -> bool:
        """Whether it says itself where the assistant speaks."""
        return _MARKED.search(self._source) is not None

    def render(self, messages: list[Message], *, ask: bool = False) -> str:
        """The text of messages; with `ask` up to where the assistant's next turn begins.

        Raises:
            DataError: The template refuses them.
        """
        return self._render(messages, ask=ask)[0]

    def render_marked(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """The text of messages, and where the template's marks say that the assistant speaks.

        Raises:
            DataError: The template refuses the messages.
        """
        return self._render(messages, marks=True)

    def _render(self, messages: list[Message], *, ask: bool = False, marks: bool = False) -> tuple[str, list[Span]]:
        try:
            texts, spans = render_jinja_template(
                [messages],
                tools=self._tools,
                chat_template=self._source,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=ask,
                **self._variables,
            )
        except TemplateSyntaxError as error:  # no other messages would do
            raise DataError(
                "the chat template",
                expected="one in Jinja",
                got=f"line {error.lineno}: {error.message}",
                hint="mend it, or set chat_template_path to another",
            ) from error
        # A template is a program: what it raises on purpose and by accident is of many classes.
        except Exception as error:
            raise DataError(
                self._where,
                expected="messages that the tokenizer's chat template takes",
                got=f"{type(error).__name__}: {error}",
                hint="change the messages, or set chat_template_path to another template",
            ) from error
        return texts[0], _merged(spans[0]) if marks else []


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans with those that touch in one: some templates mark a content and its end apart."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]  # noqa: PLW2901 - the longer span begins where the one before it does
        merged.append((start, end))
    return merged
