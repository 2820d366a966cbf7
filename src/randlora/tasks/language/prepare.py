"""From a config's sources to the tables that TRL's trainers take, in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.tasks.language.alpaca import Wording
from randlora.tasks.language.encoding import Encoded, encode
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.mixture import read_sources
from randlora.tasks.language.pairs import encode_preferences
from randlora.tasks.language.pool import Pool, count_leaks, mix
from randlora.tasks.language.preview import Statistics, statistics


@dataclass(frozen=True)
class Prepared:
    """Data for a trainer.

    Attributes:
        train: What to train on: `input_ids` and `labels`, or `prompt_ids`, `chosen_ids` and `rejected_ids`.
        validation: What to validate with, if anything, in the same columns.
        preferences: Whether they are preferences, and so for `DPOTrainer`.
        statistics: Numbers of `train`.
        notes: What the user should know, a line each.
    """

    train: Encoded
    validation: Encoded | None
    preferences: bool
    statistics: Statistics
    notes: Sequence[str]


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    train: Any,
    *,
    validation: Any = None,
    loss: Loss | None = None,
    max_length: int | None = None,
    drop_empty: bool = False,
    wording: Wording | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Prepared:
    """Read, mix and tokenize language data.

    Args:
        tokenizer: A fast tokenizer.
        train: A source or a list of them, as `read_sources` takes them.
        validation: A share or a number of rows to hold out of `train`, or sources of their own; None for none.
        loss: What is learned; None for completions, every turn of the assistant, and whole texts.
        max_length: Tokens that are kept of an example; None keeps all.
        drop_empty: Leave out examples that cutting leaves without a trained token, in place of an error.
        wording: The prompt around an instruction; None is the chat template, or alpaca's where there is none.
        chat_template_kwargs: What else the chat template is told, for example `enable_thinking`.
        seed: Seed of all draws; the order is the trainer's.

    Raises:
        DataError: The data cannot be read, are of no form, or an example has no trained token.
        ConfigError: A source or `validation` is not of the form expected.
    """
    words = wording or ("alpaca" if tokenizer.chat_template is None else None)
    share = validation if isinstance(validation, int | float) and not isinstance(validation, bool) else None
    pool, held = mix(read_sources(train), wording=words, validation=share, seed=seed)
    if share is None and validation is not None:
        held, _ = mix(read_sources(validation, "data.validation"), wording=words, seed=seed)
        if held.preferences != pool.preferences:
            raise DataError(
                "data.validation", expected="data of the kind of data.train", got="preferences beside others"
            )

    def tokenize(samples: Pool) -> Encoded:
        cutting: dict[str, Any] = {"max_length": max_length, "drop_empty": drop_empty}
        if samples.preferences:
            return encode_preferences(tokenizer, samples, **cutting, chat_template_kwargs=chat_template_kwargs)
        return encode(tokenizer, samples, loss=loss, **cutting, chat_template_kwargs=chat_template_kwargs)

    learned, tested = tokenize(pool), tokenize(held) if held is not None else None
    notes = [
        f"{encoded.dropped:,} examples of {name} are left out: max_length = {max_length:,} leaves nothing to train on"
        for name, encoded in (("training", learned), ("validation", tested))
        if encoded is not None and encoded.dropped
    ]
    for name, encoded in (("training", learned), ("validation", tested)):
        if encoded is not None and len(encoded.rows) == 0:
            raise DataError(f"{name} data", expected="at least one example", got="none", hint="raise max_length")
    leaks = count_leaks(pool, held) if held is not None else 0
    if held is not None and leaks:
        notes.append(f"{leaks:,} of {len(held):,} examples for validation are in the training data too")
    return Prepared(learned, tested, pool.preferences, statistics(learned), notes)
