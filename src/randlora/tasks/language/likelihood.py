"""How likely a language model holds given answers, in batches that give what each answer gives alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel

from randlora.tasks.language.encoding import IGNORED


@torch.no_grad()
def log_likelihoods(
    model: Any,
    pairs: Sequence[tuple[list[int], list[int]]],
    *,
    batch_size: int,
    advance: Callable[[int], object] = lambda _: None,
) -> list[float]:
    """Logarithms of the likelihood of answers behind their prompts, summed over the answer's tokens.

    Rows are padded on the right, where nothing that counts can see it. Prompts of like length go together, so that
    logits are needed at few places.

    Args:
        model: A causal language model, in evaluation mode.
        pairs: Token ids of a prompt and of an answer, each of one or more.
        batch_size: Answers that are scored together.
        advance: Called after every batch with its size.

    Returns:
        A sum of logarithms (base e) for each pair, in float32.
    """
    found = [0.0] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda index: (len(pairs[index][0]), len(pairs[index][1])))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for index, value in zip(batch, _sums(model, [pairs[index] for index in batch]), strict=True):
            found[index] = value
        advance(len(batch))
    return found


def _sums(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(answer)
    first = min(len(prompt) for prompt, _ in pairs)  # the token before it predicts it
    logits = _logits(model, ids, mask, torch.arange(first - 1, longest - 1))
    losses = torch.nn.functional.cross_entropy(
        logits.float().transpose(1, 2), labels[:, first:].to(logits.device), ignore_index=IGNORED, reduction="none"
    )
    sums: list[float] = (-losses.sum(dim=1)).tolist()
    return sums


def _logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Logits at some places of every row, (rows, places, words)."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    inputs: dict[str, Any] = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    places = places.to(model.device)
    if base._supports_logits_to_keep():
        found: torch.Tensor = model(**inputs, logits_to_keep=places, use_cache=False).logits
        return found
    every: torch.Tensor = model(**inputs, use_cache=False).logits
    return every[:, places]
