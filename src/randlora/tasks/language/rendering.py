"""A sample as the text that is tokenized, with the characters in it that are learned."""

from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.messages import note
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.samples import Completion, Conversation, Message, Preference, Sample, Text
from randlora.tasks.language.templates import ChatTemplate, Span
from randlora.tasks.language.turns import Turns, UntoldTurnsError, require_said


@dataclass(frozen=True)
class Rendered:
    """A text to tokenize.

    Attributes:
        text: The text, without the tokens that the two flags set.
        learned: The spans of characters in it that carry a loss, in their order.
        opened: Whether the text begins with the tokens that open it; if not, the tokenizer's own are set before it.
        closed: Whether it ends with a token that ends it; if not, the end-of-sequence token is set after it, learned.
        cut: The character at which it is cut in two to be tokenized. None means wherever learning begins.
    """

    text: str
    learned: tuple[Span, ...]
    opened: bool
    closed: bool
    cut: int | None = None


class Renderer:
    """Renders samples.

    Args:
        tokenizer: Gives the chat template and the special tokens.
        loss: What is learned.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, loss: Loss) -> None:
        self._tokenizer, self._loss = tokenizer, loss
        self._closers = closing_tokens(tokenizer)

    def render(self, sample: Sample, where: str) -> Rendered:
        """Render a text, a completion or a conversation.

        Args:
            sample: The sample.
            where: Its place, for the message of an error.

        Raises:
            DataError: There is no chat template, it refuses the messages, or the turns in its text cannot be told.
        """
        if isinstance(sample, Conversation):
            return self._conversation(sample, where)
        if isinstance(sample, Text):
            return self._plain("", sample.text, where)
        if isinstance(sample, Completion):
            return self._plain(sample.prompt, sample.completion, where)
        raise DataError(where, expected="an example to imitate", got="a preference", hint="train it with DPO")

    def render_pair(self, sample: Sample, where: str) -> tuple[Rendered, Rendered]:
        """Render a preference as its prompt with the better, and with the worse answer, which are marked as learned.

        Args:
            sample: The preference.
            where: Its place, for the message of an error.

        Raises:
            DataError: There is no chat template, it refuses the messages, or it changes the prompt once it is answered.
        """
        if not isinstance(sample, Preference):
            raise DataError(where, expected="a preference", got="an example to imitate", hint="train it without DPO")
        pair = [self._answered(sample, answer, where) for answer in (sample.chosen, sample.rejected)]
        return pair[0], pair[1]

    def _plain(self, prompt: str, answer: str, where: str) -> Rendered:
        # One end-of-sequence token is set in any case, so that those written out are taken away.
        answer = without_end(answer, self._tokenizer.eos_token)
        if not answer.strip():
            raise DataError(where, expected="a text before its end", got="an end-of-sequence token alone")
        start = len(prompt) if self._loss.of_completions else 0
        return Rendered(prompt + answer, ((start, len(prompt) + len(answer)),), opened=False, closed=False)

    def _conversation(self, sample: Conversation, where: str) -> Rendered:
        template = ChatTemplate(self._tokenizer, where, sample.tools, sample.options)
        if self._loss.of_turns:
            whole, spans = self._turns(sample, template, where)
        else:
            whole = template.render(sample.messages)
            spans = [(0, len(whole))]
        _require_all_said(sample.messages, whole, where)
        return Rendered(whole, tuple(spans), opened=True, closed=whole.rstrip().endswith(self._closers))

    def _turns(self, sample: Conversation, template: ChatTemplate, where: str) -> tuple[str, list[Span]]:
        last_only = self._loss.assistant_only_loss == "last"
        try:
            return Turns(template, self._closers, where, last_only=last_only).find(sample)
        except UntoldTurnsError:
            source = training_template(self._tokenizer)
            if source is None:
                raise
            template = ChatTemplate(self._tokenizer, where, sample.tools, sample.options, source)
            return Turns(template, self._closers, where, last_only=last_only).find(sample)

    def _answered(self, sample: Preference, answer: str | list[Message], where: str) -> Rendered:
        if isinstance(sample.prompt, str) or isinstance(answer, str):
            return self._plain(str(sample.prompt), str(answer), where)
        template = ChatTemplate(self._tokenizer, where, sample.tools, sample.options)
        before = template.render(sample.prompt, ask=True)
        whole = template.render([*sample.prompt, *answer])
        if not whole.startswith(before) or len(whole) == len(before):
            raise DataError(
                where,
                expected="a chat template that renders the prompt as it did before the answer",
                got="one that changes it",
                hint="set chat_template_path",
            )
        _require_all_said([*sample.prompt, *answer], whole, where)
        closed = whole.rstrip().endswith(self._closers)
        whole = whole.rstrip() if closed else whole
        return Rendered(whole, ((len(before), len(whole)),), opened=True, closed=closed)


@lru_cache(maxsize=1)
def training_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """TRL's template that tells the turns in the place of a tokenizer's, if it has one; the user is told, once."""
    from trl.chat_template_utils import get_training_chat_template  # noqa: PLC0415 - heavy, and seldom needed

    try:
        source: str | None = get_training_chat_template(tokenizer)
    except ValueError:  # it knows no such template
        return None
    if source is not None:
        note("the chat template changes what it wrote before: conversations are written by TRL's for training")
    return source


def without_end(answer: str, end: str | None) -> str:
    """An answer without the end-of-sequence tokens that are written out behind it."""
    while end and answer.rstrip().endswith(end):
        answer = answer.rstrip().removesuffix(end)
    return answer


def closing_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts of a tokenizer's special tokens that may end a turn, so not those for beginning and padding."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    others = {tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token} - {tokenizer.eos_token}
    return tuple(dict.fromkeys(token for token in [*tokenizer.all_special_tokens, *added] if token not in others))


def _require_all_said(messages: list[Message], whole: str, where: str) -> None:
    for index, message in enumerate(messages):
        if message["role"] in ("user", "assistant"):
            require_said(message, whole, f"{where}, message {index}")
