"""Examples to imitate as questions with an answer, for the scores that ask a model to answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
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
            DataError: There is no chat template, it refuses the messages, or it writes the answer in another way.
        """
        opened = self._opened(question)
        if opened.cut in (None, len(opened.text)):
            return self._encoder.encode([replace(opened, cut=None)])[0].ids
        return self._answered(opened, self.answer(question))[0]

    def require(self, question: Question) -> None:
        """Check that the model can be asked, which takes no tokens.

        Raises:
            DataError: See `prompt`.
        """
        self._opened(question)

    def answer(self, question: Question) -> str:
        """The answer in words, without the end that may be written out behind it."""
        return self._bare(question.answer)

    def answered(self, question: Question, answers: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Token ids of the prompt, and of each answer behind it, without a token that ends it.

        Raises:
            DataError: See `prompt`.
        """
        opened = self._opened(question)
        return [self._answered(opened, answer) for answer in answers]

    def _bare(self, answer: str) -> str:
        return without_end(answer, self._tokenizer.eos_token)

    def _answered(self, opened: Rendered, answer: str) -> tuple[list[int], list[int]]:
        start = len(opened.text)
        text = replace(opened, text=opened.text + answer, learned=((start, start + len(answer)),))
        tokens = self._encoder.encode([text])[0]
        first = tokens.learned.index(True)
        return tokens.ids[:first], tokens.ids[first:]

    def _opened(self, question: Question) -> Rendered:
        """The text before the answer, cut where the model begins to write.

        Some chat templates begin the assistant's turn with more than they ask for it with: Qwen3's with empty thoughts,
        gpt-oss' with a channel, Llama 2's with a blank. A trained model goes on from there.
        """
        sample = question.sample
        if isinstance(sample, Completion):
            return Rendered(sample.prompt, (), opened=False, closed=True)
        template = ChatTemplate(self._tokenizer, question.where, sample.tools, sample.options)
        given, said = sample.messages[:-1], self._bare(sample.messages[-1]["content"]).strip()
        asked = template.render(given, ask=True)
        # Two answers without a letter in common: what is alike in both is the template's.
        both = [template.render([*given, {"role": "assistant", "content": word}]) for word in ("no", "yes")]
        whole = template.render(sample.messages)
        for before in (commonprefix(both), asked):  # noqa: RUF071 - letters, not paths
            if whole.startswith(before + said):
                cut = len(asked) if before.startswith(asked) else len(before)
                return Rendered(before, (), opened=True, closed=True, cut=cut)
        raise DataError(
            question.where,
            expected="an answer that the chat template writes as it stands, and no thoughts of the example's before it",
            got="another in its place",
            hint="leave data.metrics out",
        )
