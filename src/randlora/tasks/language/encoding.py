"""Samples to the columns `input_ids` and `labels`, which TRL's SFTTrainer takes as they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import datasets
from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.rendering import Renderer
from randlora.tasks.language.samples import Located
from randlora.tasks.language.token_table import TokenTable
from randlora.tasks.language.tokens import Encoder, Tokens

IGNORED = -100
"""The label of a token without loss, everywhere in PyTorch and transformers."""

BATCH = 1000
"""Samples that are tokenized together, and held as Python lists at one time."""


@dataclass(frozen=True)
class Encoded:
    """Tokenized examples.

    Attributes:
        rows: A table of lists of token ids.
        cut: Examples that were longer than `max_length`.
        dropped: Examples that had no trained token within it and were left out.
    """

    rows: datasets.Dataset
    cut: int = 0
    dropped: int = 0


def encode(
    tokenizer: PreTrainedTokenizerBase,
    samples: Iterable[Located],
    *,
    loss: Loss | None = None,
    max_length: int | None = None,
    drop_empty: bool = False,
) -> Encoded:
    """Tokenize samples for supervised training.

    Texts and completions end with one end-of-sequence token and begin with the tokenizer's own opening tokens once;
    conversations are as the chat template has them. The label of the first token is ignored, as nothing predicts it.

    Args:
        tokenizer: A fast tokenizer, with a chat template where samples are conversations.
        samples: Samples, each with its place for messages.
        loss: What is learned; None for completions, every turn of the assistant, and whole texts.
        max_length: Tokens that are kept of an example, from its beginning; None keeps all.
        drop_empty: Leave out examples that have no trained token within `max_length`, in place of an error.

    Returns:
        A table of `input_ids` and `labels`, lists of equal lengths.

    Raises:
        DataError: An example has no trained token, or cannot be rendered; the message names its row.
    """
    renderer = Renderer(tokenizer, loss or Loss())
    encoder = Encoder(tokenizer)
    writer = TokenTable(("input_ids", "labels"))
    cut = dropped = 0
    source = iter(samples)
    while batch := list(islice(source, BATCH)):
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        rendered = [renderer.render(sample, where) for where, sample in batch]
        for (where, _), tokens in zip(batch, encoder.encode(rendered), strict=True):
            example = _labels(tokens)
            keeps = require_trained(example, where, max_length, drop_empty=drop_empty)
            cut += max_length is not None and len(example) > max_length
            dropped += not keeps
            if keeps:
                ids.append(tokens.ids[:max_length])
                labels.append(example[:max_length])
        writer.add(ids, labels)
    return Encoded(writer.table(), cut=cut, dropped=dropped)


def require_trained(labels: list[int], where: str, max_length: int | None, *, drop_empty: bool) -> bool:
    """Check that an example has a trained token, and say whether it has one within `max_length`.

    Args:
        labels: The labels of all its tokens.
        where: Its place, for the message.
        max_length: Tokens that are kept.
        drop_empty: Whether one without may be left out where cutting is the cause.

    Raises:
        DataError: It has none.
    """
    first = next((place for place, label in enumerate(labels) if label != IGNORED), None)
    if first is None:
        raise DataError(where, expected="a token to train on", got="an example without one")
    if max_length is None or first < max_length or drop_empty:
        return max_length is None or first < max_length
    raise DataError(
        where,
        expected=f"a token to train on among the first {max_length:,}, which is max_length",
        got=f"a prompt of {first:,}",
        hint="raise max_length, or leave such examples out with drop_empty",
    )


def _labels(tokens: Tokens) -> list[int]:
    labels = [token if learned else IGNORED for token, learned in zip(tokens.ids, tokens.learned, strict=True)]
    return [IGNORED, *labels[1:]]
