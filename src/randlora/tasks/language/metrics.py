"""Scores of a language model by what it answers: the same words, or the right one of several choices."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from randlora.errors import DataError
from randlora.tasks.bars import progress_bar
from randlora.tasks.language.generation import complete
from randlora.tasks.language.likelihood import log_likelihoods
from randlora.tasks.language.questions import Asker, Question

MORE = 16
"""Tokens that an answer may have more than the longest that is expected: the same words may be other tokens."""


def exact_match(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    context: int,
    batch_size: int,
    max_new_tokens: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Count the questions whose likeliest answer, token by token, has the words of the example's.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        questions: The questions.
        context: Tokens that the model has positions for.
        batch_size: Questions that are answered together.
        max_new_tokens: Tokens of an answer at most. None means as many as the longest example's, and 16.
        advance: Called after every batch with its size.

    Returns:
        The number of answers that are the example's, blanks around them aside.
    """
    asker = Asker(tokenizer)
    wanted = [asker.answer(question) for question in questions]
    prompts = [asker.prompt(question) for question in questions]
    lengths = [len(ids) for ids in tokenizer(wanted, add_special_tokens=False)["input_ids"]] if wanted else [0]
    most = max_new_tokens or max(lengths) + MORE
    rooms = [min(most, context - len(ids)) for ids in prompts]
    answers = complete(model, tokenizer, prompts, rooms, batch_size=batch_size, advance=advance)
    return sum(answer.strip() == expected.strip() for answer, expected in zip(answers, wanted, strict=True))


def choice_accuracy(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    context: int,
    batch_size: int,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[int, int]:
    """Count the questions of which the model holds the right choice for the likeliest.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        questions: The questions, with their choices.
        context: Tokens that the model has positions for.
        batch_size: Choices that are scored together.
        advance: Called after every batch with its size, in choices.

    Returns:
        Right by the log-likelihood of the whole answer, and by that for each of its characters (lm-evaluation-harness'
        acc and acc_norm). A tie is decided for the first.

    Raises:
        DataError: A question with an answer is longer than the context, or see `Asker.answered`.
    """
    asker = Asker(tokenizer)
    pairs: list[tuple[list[int], list[int]]] = []
    for question in questions:
        if question.choice is not None:
            found = asker.answered(question, question.choice.candidates)
            longest = max(len(prompt) + len(answer) for prompt, answer in found)
            if longest > context:
                expected = f"at most {context:,} tokens with each choice, the model's context"
                raise DataError(question.where, expected=expected, got=f"{longest:,}")
            pairs += found
    sums = iter(log_likelihoods(model, pairs, batch_size=batch_size, advance=advance))
    by_sum = by_length = 0
    for question in questions:
        if question.choice is not None:
            scores = [(next(sums), len(text)) for text in question.choice.candidates]
            by_sum += _first_best([score for score, _ in scores]) == question.choice.right
            by_length += _first_best([score / length for score, length in scores]) == question.choice.right
    return by_sum, by_length


def count_choices(questions: Sequence[Question]) -> int:
    """The number of choices of all questions."""
    return sum(len(question.choice.candidates) for question in questions if question.choice is not None)


def _first_best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda index: scores[index])


def answer_scores(
    trainer: Any,
    questions: Sequence[Question],
    names: Sequence[str],
    *,
    context: int,
    max_new_tokens: int | None = None,
) -> dict[str, float]:
    """Scores of a trainer's model; processes share the questions.

    Args:
        trainer: The trainer, with the tokenizer as its `processing_class`.
        questions: The questions.
        names: Of "exact_match" and "choice_accuracy".
        context: Tokens that the model has positions for.
        max_new_tokens: Tokens of an answer at most; see `exact_match`.

    Returns:
        "exact_match", "choice_accuracy" and "choice_accuracy_norm" (by length), in percent.
    """
    accelerator, tokenizer = trainer.accelerator, trainer.processing_class
    own = questions[accelerator.process_index :: accelerator.num_processes]
    model = accelerator.unwrap_model(trainer.model) if not trainer.is_fsdp_enabled else trainer.model
    common: dict[str, Any] = {"context": context, "batch_size": trainer.args.per_device_eval_batch_size}
    training = model.training
    model.eval()
    counts: dict[str, int] = {}
    try:
        with trainer.compute_loss_context_manager():
            if "exact_match" in names:
                with progress_bar("answering", "question", total=len(own), leave=False) as bar:
                    found = exact_match(
                        model, tokenizer, own, max_new_tokens=max_new_tokens, **common, advance=bar.update
                    )
                counts["exact_match"] = found
            if "choice_accuracy" in names:
                with progress_bar("choosing", "choice", total=count_choices(own), leave=False) as bar:
                    by_sum, by_length = choice_accuracy(model, tokenizer, own, **common, advance=bar.update)
                counts |= {"choice_accuracy": by_sum, "choice_accuracy_norm": by_length}
    finally:
        model.train(training)
    sums = torch.tensor([*counts.values()], dtype=torch.float64, device=trainer.args.device)
    shares = (100 * accelerator.reduce(sums) / max(len(questions), 1)).tolist()
    return dict(zip(counts, shares, strict=True))
