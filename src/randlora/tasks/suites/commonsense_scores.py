"""Scores of the commonsense suite: by the answers of a beam search, and by the likelihood of the choices.

A model answers in words, and the first word in the answer that is one of the task's choices counts. The reference
(LLM-Adapters' `commonsense_evaluate.py`) pads prompts on the left without an attention mask, so that in batches above 1
the padding is read as text; the protocol "faithful" does so too. Which choice is the likeliest needs no words; it is
scored in the protocol's words, but without that defect, as the reference does not have it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from randlora.errors import DataError
from randlora.tasks.language.generation import GREEDY, complete, ends
from randlora.tasks.language.metrics import choice_accuracy, count_choices
from randlora.tasks.language.questions import Asker, Question
from randlora.tasks.suites.commonsense import CHOICES, Protocol, said

BEAMS = 4
MAX_NEW_TOKENS = 32

_PAD = 0
"""The token that the reference pads with, whatever it means to the model."""


@dataclass(frozen=True)
class TaskScore:
    """Scores of one task.

    Attributes:
        task: Its name.
        examples: Questions that were asked.
        generated: Right answers in words, in percent.
        likelihood: Right by the likeliest choice, in percent.
        unanswered: Answers in words without any choice in them, in percent; they count as wrong.
    """

    task: str
    examples: int
    generated: float
    likelihood: float
    unanswered: float


def score_task(
    model: Any,
    tokenizer: Any,
    task: str,
    questions: Sequence[Question],
    *,
    protocol: Protocol,
    context: int,
    batch_size: int,
    advance: Callable[[int], object] = lambda _: None,
) -> TaskScore:
    """Score a task.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        task: The task's name.
        questions: From `read_questions`, of the same protocol.
        protocol: "faithful" or "fixed".
        context: Tokens that the model has positions for.
        batch_size: Questions, and choices, that go together; it changes the answers of "faithful".
        advance: Called after every batch with its size: first questions, then choices; `work` in all.

    Raises:
        DataError: A question leaves no room for an answer in the model's context.
    """
    asker = Asker(tokenizer)
    prompts = [asker.prompt(question) for question in questions]
    for question, ids in zip(questions, prompts, strict=True):
        if len(ids) + MAX_NEW_TOKENS > context:
            expected = f"at most {context - MAX_NEW_TOKENS:,} tokens, with room for an answer in the model's context"
            raise DataError(question.where, expected=expected, got=f"{len(ids):,}")
    options = {**GREEDY, "num_beams": BEAMS}
    if protocol == "fixed":
        rooms = [MAX_NEW_TOKENS] * len(prompts)
        answers = complete(model, tokenizer, prompts, rooms, batch_size=batch_size, options=options, advance=advance)
    else:
        answers = _unmasked(model, tokenizer, prompts, batch_size, options, advance)
    chosen = [first_choice(answer, task) for answer in answers]
    right = sum(
        choice is not None and said(choice) == question.answer
        for choice, question in zip(chosen, questions, strict=True)
    )
    likeliest, _ = choice_accuracy(model, tokenizer, questions, context=context, batch_size=batch_size, advance=advance)
    share = 100 / len(questions)
    return TaskScore(task, len(questions), share * right, share * likeliest, share * chosen.count(None))


def work(questions: Sequence[Question]) -> int:
    """How far `score_task` advances in all."""
    return len(questions) + count_choices(questions)


def first_choice(answer: str, task: str) -> str | None:
    """The first of a task's choices in an answer, in the letters' case of the choice; None where there is none.

    >>> first_choice("The answer is answer2, not answer1.", "ARC-Easy")
    'answer2'
    """
    found = re.search("|".join(CHOICES[task]), answer)
    return found[0] if found else None


@torch.no_grad()
def _unmasked(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    batch_size: int,
    options: dict[str, Any],
    advance: Callable[[int], object],
) -> list[str]:
    """Answers as the reference makes them: in the order of the file, the padding read as text."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        longest = max(len(ids) for ids in batch)
        padded = torch.tensor([[_PAD] * (longest - len(ids)) + ids for ids in batch], device=model.device)
        found = model.generate(
            input_ids=padded,
            attention_mask=torch.ones_like(padded),
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=ends(model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
            **options,
        )
        texts = tokenizer.batch_decode(found[:, longest:], skip_special_tokens=True)
        # The reference keeps what stands between the first two of these marks.
        answers.extend(text.split("### Response:")[0] for text in texts)
        advance(len(batch))
    return answers
