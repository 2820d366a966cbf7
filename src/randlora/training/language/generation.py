"""How answers are made: the choice of tokens, and the answers of a loaded model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from randlora.errors import ConfigError
from randlora.tasks.language.generation import GREEDY, complete
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
        if self.temperature != 0 and not 1e-3 <= self.temperature < float("inf"):  # by less logits overflow
            raise ConfigError("--temperature", expected="0, or 0.001 or more", got=str(self.temperature))
        if not 0 <= self.seed < 2**32:
            raise ConfigError("--seed", expected="a whole number from 0 to 2^32 - 1", got=str(self.seed))
        if not 0 < self.top_p <= 1:
            raise ConfigError("--top-p", expected="above 0, and at most 1", got=str(self.top_p))
        if self.top_p < 1 and self.temperature == 0:
            raise ConfigError("--top-p", expected="a temperature above 0 with it", got="0, which takes the likeliest")

    def arguments(self) -> dict[str, Any]:
        """Arguments of transformers' `generate`; what else the model's own config says (penalties) holds."""
        if self.temperature == 0:
            return dict(GREEDY)
        # Without a word transformers draws from the 50 likeliest tokens.
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


def check_batch_size(size: int) -> None:
    """Check that a batch has a prompt.

    Raises:
        ConfigError: It has none.
    """
    if size < 1:
        raise ConfigError("--batch-size", expected="1 or more", got=str(size))


def generate(
    speaker: Speaker,
    prompts: Sequence[list[int]],
    decoding: Decoding | None = None,
    *,
    batch_size: int = 8,
    advance: Callable[[int], object] = lambda _: None,
) -> list[str]:
    """Answer prompts.

    Without draws no answer depends on its batch, up to the last bits of the arithmetic.

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
    return complete(
        speaker.model,
        speaker.tokenizer,
        prompts,
        rooms,
        batch_size=batch_size,
        options=decoding.arguments(),
        advance=advance,
    )
