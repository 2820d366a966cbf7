"""A sample as the text that is tokenized, with the characters in it that are learned."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.samples import Completion, Conversation, Preference, Sample, Text
from randlora.tasks.language.templates import ChatTemplate, Span
from randlora.tasks.language.turns import Turns, require_said


@dataclass(frozen=True)
class Rendered:
    """A text to tokenize.

    Attributes:
        text: The text, without the tokens that the two flags set.
        learned: The spans of characters in it that carry a loss, in their order.
        opened: Whether the text begins with the tokens that open it; if not, the tokenizer's own are set before it.
        closed: Whether it ends with a token that ends it; if not, the end-of-sequence token is set after it, learned.
    """

    text: str
    learned: tuple[Span, ...]
    opened: bool
    closed: bool


def render(tokenizer: PreTrainedTokenizerBase, sample: Sample, loss: Loss, where: str) -> Rendered:
    """Render a sample.

    Args:
        tokenizer: Gives the chat template and the special tokens.
        sample: A text, a completion or a conversation.
        loss: What is learned.
        where: The place of the sample, for the message of an error.

    Raises:
        DataError: There is no chat template, it refuses the messages, or the turns in its text cannot be told.
    """
    if isinstance(sample, Conversation):
        return _conversation(tokenizer, sample, loss, where)
    if isinstance(sample, Preference):
        raise DataError(where, expected="an example to imitate", got="a preference", hint="train it with DPO")
    prompt = sample.prompt if isinstance(sample, Completion) else ""
    answer = without_end(tokenizer, sample.text if isinstance(sample, Text) else sample.completion)
    if not answer.strip():
        raise DataError(where, expected="a text before its end", got="an end-of-sequence token alone")
    start = len(prompt) if loss.of_completions else 0
    return Rendered(prompt + answer, ((start, len(prompt) + len(answer)),), opened=False, closed=False)


def render_pair(tokenizer: PreTrainedTokenizerBase, sample: Preference, where: str) -> tuple[Rendered, Rendered]:
    """Render a preference as its prompt with the better, and with the worse answer; the answers are marked as learned.

    Args:
        tokenizer: Gives the chat template and the special tokens.
        sample: The preference.
        where: The place of it, for the message of an error.

    Raises:
        DataError: There is no chat template, it refuses the messages, or it changes the prompt once it is answered.
    """
    if isinstance(sample.prompt, str):
        one, two = (
            render(tokenizer, Completion(sample.prompt, str(answer)), Loss(), where)
            for answer in (sample.chosen, sample.rejected)
        )
        return one, two
    template = ChatTemplate(tokenizer, where, sample.tools)
    before = template.render(sample.prompt, ask=True)
    pair = []
    for answer in (sample.chosen, sample.rejected):
        whole = template.render([*sample.prompt, *(message for message in answer if isinstance(message, dict))])
        if not whole.startswith(before) or len(whole) == len(before):
            raise DataError(
                where,
                expected="a chat template that renders the prompt as it did before the answer",
                got="one that changes it",
                hint="set chat_template_path",
            )
        closed = whole.rstrip().endswith(closing_tokens(tokenizer))
        whole = whole.rstrip() if closed else whole
        pair.append(Rendered(whole, ((len(before), len(whole)),), opened=True, closed=closed))
    return pair[0], pair[1]


def closing_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts of a tokenizer's special tokens that may end a turn, so not those for beginning and padding."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    others = {tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token} - {tokenizer.eos_token}
    return tuple(dict.fromkeys(token for token in [*tokenizer.all_special_tokens, *added] if token not in others))


def without_end(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text without the end-of-sequence tokens that were written out at its end: one is set in any case."""
    end = tokenizer.eos_token
    while end and text.rstrip().endswith(end):
        text = text.rstrip().removesuffix(end)
    return text


def _conversation(tokenizer: PreTrainedTokenizerBase, sample: Conversation, loss: Loss, where: str) -> Rendered:
    template = ChatTemplate(tokenizer, where, sample.tools)
    closers = closing_tokens(tokenizer)
    if loss.of_turns:
        turns = Turns(template, closers, where, last_only=loss.assistant_only_loss == "last")
        whole, spans = turns.find(sample)
    else:
        whole = template.render(sample.messages)
        spans = [(0, len(whole))]
    for index, message in enumerate(sample.messages):
        if message["role"] in ("user", "assistant"):
            require_said(message, whole, f"{where}, message {index}")
    return Rendered(whole, tuple(spans), opened=True, closed=whole.rstrip().endswith(closers))
