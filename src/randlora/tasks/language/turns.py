"""Where the assistant speaks in the text of a conversation, whether its chat template says so or not."""

import re
from dataclasses import dataclass

from randlora.errors import DataError
from randlora.tasks.language.samples import WEIGHT, Conversation, Message
from randlora.tasks.language.templates import ChatTemplate, Span


class UntoldTurnsError(DataError):
    """A chat template does not tell where the assistant speaks."""


_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Turns:
    """Finds the turns of the assistant that are learned.

    A turn lies between the text of the messages before it, with the words that ask the assistant, and the text of the
    messages up to it. That holds for any template that does not change what it wrote before; in others its own marks
    are believed, if it has some.

    Attributes:
        template: Of the tokenizer.
        closers: Special tokens that may end a turn; a turn goes on to one that ends it and no further.
        where: The place of the conversation, for the message of an error.
        last_only: Leave out all turns but the last that is learned.
    """

    template: ChatTemplate
    closers: tuple[str, ...]
    where: str
    last_only: bool = False

    def find(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """Render a conversation.

        Returns:
            The text of the whole conversation, and the turns in it: contents, and what ends them.

        Raises:
            UntoldTurnsError: The turns cannot be told.
            DataError: The template leaves out what is said in one.
        """
        messages = conversation.messages
        spoken = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        wanted = [index for index in spoken if index >= conversation.given and messages[index].get(WEIGHT, 1)]
        learned = wanted[-1 if self.last_only else 0 :]
        whole, spans = self._by_prefixes(messages, learned)
        if learned and not spans:
            for index in learned:  # of a template that writes nothing there is nothing else to say
                require_said(messages[index], whole, f"{self.where}, message {index}")
            whole, marked = self._by_marks(messages, len(spoken))
            spans = [span for index, span in zip(spoken, marked, strict=True) if index in learned]
        for index, (start, end) in zip(learned, spans, strict=True):
            require_said(messages[index], whole[start:end], f"{self.where}, message {index}")
        return whole, spans

    def _by_prefixes(self, messages: list[Message], learned: list[int]) -> tuple[str, list[Span]]:
        """The text and its turns; none where the template changes what it wrote before."""
        whole = self.template.render(messages)
        spans: list[Span] = []
        for index in learned:
            before = self.template.render(messages[:index], ask=True)
            through = whole if index + 1 == len(messages) else self.template.render(messages[: index + 1])
            if not (whole.startswith(before) and through.startswith(before)):
                return whole, []
            if whole.startswith(through):
                end = self._closed(whole, len(before), len(through))
            else:
                end = self._end_in_both(whole, through, len(before), messages[index])
            if end <= len(before):
                return whole, []
            spans.append((len(before), end))
        return whole, spans

    def _end_in_both(self, whole: str, through: str, start: int, message: Message) -> int:
        """The end of a turn where a template ends the last turn otherwise (Phi-3, gpt-oss); 0 if it cannot be told."""
        said = message["content"].strip()
        place = through.find(said, start)
        end = place + len(said)
        if not said or place < 0 or whole[:end] != through[:end]:
            return 0
        end = len(whole) - len(whole[end:].lstrip())
        closer = max((closer for closer in self.closers if whole.startswith(closer, end)), key=len, default="")
        return end + len(closer) if closer else 0

    def _by_marks(self, messages: list[Message], spoken: int) -> tuple[str, list[Span]]:
        whole, spans = self.template.render_marked(messages) if self.template.marked else ("", [])
        if len(spans) != spoken:
            hint = "set chat_template_path to a template with {% generation %} around each turn of the assistant"
            raise UntoldTurnsError(
                self.where,
                expected="a chat template that goes on from what it rendered for the turns before",
                got="one that changes it",
                hint=hint if self.last_only else f"{hint}, or learn only the last with assistant_only_loss: last",
            )
        return whole, [(start, self._closed(whole, start, end)) for start, end in spans]

    def _closed(self, whole: str, start: int, end: int) -> int:
        """The end of a turn: behind the token that ends it, and before the line break that many set behind that."""
        turn = whole[start:end].rstrip()
        if turn.endswith(self.closers):
            return start + len(turn)
        # Many marks end before that token; GLM has none, and its turns end where the next role's token is written.
        closer = max((closer for closer in self.closers if whole.startswith(closer, end)), key=len, default="")
        return end + len(closer)


def require_said(message: Message, text: str, where: str) -> None:
    """Check that a rendered text has what a message says, of which templates may drop the beginning (thoughts).

    Templates made for messages in parts, as those of vision models are, leave texts out without a word.

    Args:
        message: The message.
        text: Where it must be.
        where: The place of the message, for the message of an error.

    Raises:
        DataError: The last word of its content is not in the text.
    """
    last = _WORD.findall(message["content"])[-1:]
    if last and last[0] not in text:
        raise DataError(
            where,
            expected="a chat template that writes what the messages say",
            got="one that leaves this one out",
            hint="set chat_template_path",
        )
