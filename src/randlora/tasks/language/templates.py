"""A tokenizer's chat template: what it makes of messages, and where the assistant speaks in it."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from randlora.errors import DataError
from randlora.tasks.language.samples import Conversation, Message

Span = tuple[int, int]
"""First character, and the one after the last."""

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: One with a chat template.
        where: The place of the messages, for the message of an error.
        tools: Tools that the template may describe.

    Raises:
        DataError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, where: str, tools: list[Any] | None = None) -> None:
        try:
            self._source: str = tokenizer.get_chat_template(tools=tools)
        except ValueError as error:
            raise DataError(
                where,
                expected="a tokenizer with a chat template, as this is a conversation",
                got="one without",
                hint="set chat_template_path, or take a model that was tuned for chat",
            ) from error
        self._tokenizer, self._where, self._tools = tokenizer, where, tools

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
                **self._tokenizer.special_tokens_map,
            )
        # A template is a program: what it raises on purpose and by accident is of many classes.
        except Exception as error:
            raise DataError(
                self._where,
                expected="messages that the tokenizer's chat template takes",
                got=f"{type(error).__name__}: {error}",
                hint="change the messages, or set chat_template_path",
            ) from error
        return texts[0], [tuple(span) for span in spans[0]] if marks else []


def assistant_spans(
    template: ChatTemplate, conversation: Conversation, closers: tuple[str, ...], where: str, *, last_only: bool
) -> tuple[str, list[Span]]:
    """Find the turns of the assistant that are learned.

    A turn lies between the text of the messages before it, with the words that ask the assistant, and the text of the
    messages up to it. That holds for any template that does not change what it wrote before; in others its own marks
    are believed, if it has some.

    Args:
        template: Of the tokenizer.
        conversation: What it renders.
        closers: The tokenizer's special tokens; a turn goes on to one that ends it and no further.
        where: The place of the conversation, for the message of an error.
        last_only: Leave out all turns but the last.

    Returns:
        The text of the whole conversation, and the turns in it: contents, and what ends them.

    Raises:
        DataError: The turns cannot be told.
    """
    messages = conversation.messages
    turns = [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and index >= conversation.given
    ]
    if last_only:
        turns = turns[-1:]
    whole = template.render(messages)
    spans: list[Span] = []
    for index in turns:
        before = template.render(messages[:index], ask=True)
        through = whole if index + 1 == len(messages) else template.render(messages[: index + 1])
        if not (whole.startswith(before) and whole.startswith(through) and len(before) < len(through)):
            return _by_marks(template, messages, turns, closers, where)
        spans.append((len(before), _closed(whole, len(before), len(through), closers)))
    return whole, spans


def _closed(whole: str, start: int, end: int, closers: tuple[str, ...]) -> int:
    """The end of a turn without the line break that a template puts after the token that ends it."""
    turn = whole[start:end].rstrip()
    return start + len(turn) if turn.endswith(closers) else end


def _by_marks(
    template: ChatTemplate, messages: list[Message], turns: list[int], closers: tuple[str, ...], where: str
) -> tuple[str, list[Span]]:
    spoken = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    whole, spans = template.render_marked(messages) if template.marked else ("", [])
    if len(spans) != len(spoken):
        raise DataError(
            where,
            expected="a chat template that renders earlier turns as it did before later ones",
            got="one that changes them",
            hint="set chat_template_path to a template with {% generation %} around each turn of the assistant, or "
            "learn the last turn only with assistant_only_loss: last",
        )
    learned = [span for index, span in zip(spoken, spans, strict=True) if index in turns]
    return whole, [(start, _with_closer(whole, start, end, closers)) for start, end in learned]


def _with_closer(whole: str, start: int, end: int, closers: tuple[str, ...]) -> int:
    """The end of a turn with the token that ends it, which many templates write after their mark."""
    if whole[start:end].rstrip().endswith(closers):
        return _closed(whole, start, end, closers)
    return next((end + len(closer) for closer in closers if whole.startswith(closer, end)), end)
