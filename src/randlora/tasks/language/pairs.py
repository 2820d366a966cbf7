"""Preferences to the columns `prompt_ids`, `chosen_ids` and `rejected_ids`, which TRL's DPOTrainer trains on."""

from collections.abc import Iterable
from itertools import islice

from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.tasks.language.encoding import BATCH, Encoded
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.rendering import Renderer
from randlora.tasks.language.samples import Located
from randlora.tasks.language.token_table import TokenTable
from randlora.tasks.language.tokens import Encoder, Tokens

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


def encode_preferences(
    tokenizer: PreTrainedTokenizerBase,
    samples: Iterable[Located],
    *,
    max_length: int | None = None,
    drop_empty: bool = False,
) -> Encoded:
    """Tokenize preferences: a prompt once, and the two answers to it with the token that ends each.

    Args:
        tokenizer: A fast tokenizer, with a chat template where samples are messages.
        samples: Preferences, each with its place for messages.
        max_length: Tokens that are kept of a prompt with an answer, from its beginning; None keeps all.
        drop_empty: Leave out pairs whose prompt alone fills `max_length`, in place of an error.

    Returns:
        A table of `COLUMNS`.

    Raises:
        DataError: A prompt fills `max_length`, two answers are the same tokens, or a sample cannot be rendered; the
            message names the row.
    """
    renderer = Renderer(tokenizer, Loss())
    encoder = Encoder(tokenizer)
    table = TokenTable(COLUMNS)
    cut = dropped = 0
    source = iter(samples)
    while batch := list(islice(source, BATCH)):
        rows: list[tuple[list[int], list[int], list[int]]] = []
        rendered = [text for where, sample in batch for text in renderer.render_pair(sample, where)]
        tokens = encoder.encode(rendered)
        for (where, _), better, worse in zip(batch, tokens[::2], tokens[1::2], strict=True):
            prompt, chosen, rejected = _parts(better, worse, where)
            longest = len(prompt) + max(len(chosen), len(rejected))
            cut += max_length is not None and longest > max_length
            room = max(len(chosen), len(rejected)) if max_length is None else max_length - len(prompt)
            if room > 0 and chosen[:room] != rejected[:room]:
                rows.append((prompt, chosen[:room], rejected[:room]))
            elif drop_empty:
                dropped += 1
            else:
                raise DataError(
                    where,
                    expected=f"answers that begin to differ among the first {max_length:,} tokens, which is max_length",
                    got=f"a prompt of {len(prompt):,}",
                    hint="raise max_length, or leave such examples out with drop_empty",
                )
        table.add(*([row[column] for row in rows] for column in range(len(COLUMNS))))
    return Encoded(table.table(), cut=cut, dropped=dropped)


def _parts(better: Tokens, worse: Tokens, where: str) -> tuple[list[int], list[int], list[int]]:
    """The prompt's tokens, and those of either answer.

    Where a tokenizer joins the prompt's end to an answer's beginning, the prompt ends before that token.
    """
    length = min(better.learned.index(True), worse.learned.index(True))
    while better.ids[:length] != worse.ids[:length]:
        length -= 1
    prompt, chosen, rejected = better.ids[:length], better.ids[length:], worse.ids[length:]
    if chosen == rejected:
        raise DataError(where, expected="two answers of which one is better", got="the same tokens for both")
    return prompt, chosen, rejected
