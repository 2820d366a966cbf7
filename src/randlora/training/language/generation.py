"""Answers to prompts, in batches that give what each prompt gives alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from randlora.errors import ConfigError
from randlora.training.language.speaker import Speaker

DEFAULT_LENGTH = 256
"""Tokens of an answer, unless the user says otherwise."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: Tokens of an answer at most; the model's context ends it too.
        temperature: 0 takes the likeliest token; above it tokens are drawn.
        top_p: The share of probability, of the likeliest tokens, that is drawn from.
        seed: Of the draws.
    """

    max_new_tokens: int = DEFAULT_LENGTH
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError("--max-new-tokens", expected="1 or more", got=str(self.max_new_tokens))
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError("--temperature", expected="0 or more", got=str(self.temperature))
        if not 0 < self.top_p <= 1:
            raise ConfigError("--top-p", expected="above 0, and at most 1", got=str(self.top_p))
        if self.top_p < 1 and self.temperature == 0:
            raise ConfigError("--top-p", expected="a temperature above 0 with it", got="0, which takes the likeliest")

    def arguments(self) -> dict[str, Any]:
        """Arguments of transformers' `generate`; what else the model's own config says (penalties) holds."""
        if self.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}


def check_batch_size(size: int) -> None:
    """Check that a batch has a prompt.

    Raises:
        ConfigError: It has none.
    """
    if size < 1:
        raise ConfigError("--batch-size", expected="1 or more", got=str(size))


@torch.no_grad()
def generate(
    speaker: Speaker,
    prompts: Sequence[list[int]],
    decoding: Decoding | None = None,
    *,
    batch_size: int = 8,
    advance: Callable[[int], object] = lambda _: None,
) -> list[str]:
    """Answer prompts.

    Prompts are padded on the left and masked. Prompts of like length go together, and all of a batch may answer at the
    same length, so that without draws no answer depends on its batch, up to the last bits of the arithmetic.

    Args:
        speaker: The model.
        prompts: Token ids of each prompt, fewer than the context.
        decoding: How tokens are chosen.
        batch_size: Prompts that are answered together.
        advance: Called after every batch with its size.

    Returns:
        The answers, in the order of the prompts, without special tokens.

    Raises:
        ConfigError: The batch size is not above 0.
    """
    check_batch_size(batch_size)
    decoding = decoding or Decoding()
    rooms = [min(decoding.max_new_tokens, speaker.context - len(ids)) for ids in prompts]
    torch.manual_seed(decoding.seed)
    answers = [""] * len(prompts)
    for batch in _batches(prompts, rooms, batch_size):
        for index, answer in zip(
            batch, _answer(speaker, [prompts[i] for i in batch], rooms[batch[0]], decoding), strict=True
        ):
            answers[index] = answer
        advance(len(batch))
    return answers


def _batches(prompts: Sequence[list[int]], rooms: list[int], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: (rooms[index], len(prompts[index]))):
        if batch and (len(batch) == size or rooms[index] != rooms[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _answer(speaker: Speaker, prompts: list[list[int]], room: int, decoding: Decoding) -> list[str]:
    inputs = speaker.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    inputs = {name: inputs[name].to(speaker.model.device) for name in ("input_ids", "attention_mask")}
    found = speaker.model.generate(**inputs, max_new_tokens=room, **decoding.arguments())
    new = found[:, inputs["input_ids"].shape[1] :]
    return [str(text) for text in speaker.tokenizer.batch_decode(new, skip_special_tokens=True)]
