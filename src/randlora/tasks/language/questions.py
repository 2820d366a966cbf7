"""Examples to imitate as questions with an answer, for the scores that ask a model to answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from randlora.errors import DataError
from randlora.tasks.language.choices import Choice, read_choice
from randlora.tasks.language.forms import normalise
from randlora.tasks.language.pool import Pool
from randlora.tasks.language.rendering import Rendered, without_end
from randlora.tasks.language.samples import Completion, Conversation, Sample
from randlora.tasks.language.templates import ChatTemplate
from randlora.tasks.language.tokens import Encoder


@dataclass(frozen=True)
class Question:
    """An example as a question.

    Attributes:
        where: Its file and row.
        sample: What is asked and answered; of a conversation its last turn is the answer.
        answer: The answer in words.
        choice: The answers to choose from, where they were asked for.
    """

    where: str
    sample: Completion | Conversation
    answer: str
    choice: Choice | None = None


def read_questions(pool: Pool, *, choose: bool = False, choices: Sequence[str] | None = None) -> Iterator[Question]:
    """The examples of a pool as questions.

    Args:
        pool: The examples, with the wording of their prompts.
        choose: Whether the answers to choose from are read.
        choices: Those of all examples, where an example does not list its own.

    Raises:
        DataError: An example has no prompt or no answer in words, or no answers to choose from.
    """
    for part in pool.parts:
        for number in part.rows:
            row, where = part.records[number], part.records.where(number)
            sample, question, answer = _asked(normalise(row, part.form, where, wording=pool.wording), where)
            choice = read_choice(row, question, answer, where, choices) if choose else None
            yield Question(where, sample, answer, choice)


def _asked(sample: Sample, where: str) -> tuple[Completion | Conversation, str, str]:
    if isinstance(sample, Completion):
        return sample, sample.prompt, sample.completion
    if not isinstance(sample, Conversation):
        raise DataError(where, expected="a prompt with its answer", got="a text", hint="leave data.metrics out")
    answer = sample.messages[-1]["content"]
    if not answer.strip():
        raise DataError(where, expected="an answer in words", got="a call of a tool", hint="leave data.metrics out")
    return sample, str(sample.messages[-2]["content"]), answer


class Asker:
    """Questions as token ids, those of training.

    Args:
        tokenizer: A fast one, with a chat template where questions are conversations.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._encoder = tokenizer, Encoder(tokenizer)

    def prompt(self, question: Question) -> list[int]:
        """Token ids of what the model is asked with.

        Raises:
            DataError: The chat template refuses the messages, or there is none.
        """
        return self._encoder.encode([self._rendered(question, "")])[0].ids

    def answer(self, question: Question) -> str:
        """The answer in words, without the end that may be written out behind it."""
        return without_end(question.answer, self._tokenizer.eos_token)

    def answered(self, question: Question, answer: str) -> tuple[list[int], list[int]]:
        """Token ids of the prompt, and of an answer behind it, without a token that ends it."""
        tokens = self._encoder.encode([self._rendered(question, answer)])[0]
        start = tokens.learned.index(True)
        return tokens.ids[:start], tokens.ids[start:]

    def _rendered(self, question: Question, answer: str) -> Rendered:
        sample = question.sample
        if isinstance(sample, Completion):
            prompt, opened = sample.prompt, False
        else:
            template = ChatTemplate(self._tokenizer, question.where, sample.tools)
            prompt, opened = template.render(sample.messages[:-1], ask=True), True
        span = (len(prompt), len(prompt) + len(answer))
        return Rendered(prompt + answer, (span,) if answer else (), opened=opened, closed=True)
