"""What training will see: numbers of a tokenized set, and one example with the learned part marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

from randlora.messages import printable
from randlora.tasks.language.encoding import IGNORED, Encoded
from randlora.tasks.language.pairs import COLUMNS

_MARKS = "⟦", "⟧"
_COLOURS = "\x1b[4;32m", "\x1b[0m"
"""Underlined and green, so that it shows on terminals without colours too."""


@dataclass(frozen=True)
class Statistics:
    """Numbers of a tokenized set; lengths are in tokens.

    Attributes:
        examples: Examples.
        tokens: Tokens of them all. For preferences a prompt counts with each of its answers.
        trained: Tokens that carry a loss.
        shortest: Length of the shortest example.
        median: Length of the middle one.
        p95: Length that 95 of 100 examples do not exceed.
        longest: Length of the longest.
        cut: Examples that were longer than `max_length`.
        dropped: Examples left out, since cutting left them without a trained token.
    """

    examples: int
    tokens: int
    trained: int
    shortest: int
    median: int
    p95: int
    longest: int
    cut: int
    dropped: int

    @property
    def trained_share(self) -> float:
        """The share of the tokens that carry a loss, between 0 and 1."""
        return self.trained / self.tokens if self.tokens else 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.examples:,} examples of {self.shortest:,} to {self.longest:,} tokens "
            f"(median {self.median:,}, 95 % up to {self.p95:,})",
            f"{self.tokens:,} tokens, {self.trained:,} of them trained ({self.trained_share:.1%})",
        ]
        if self.cut:
            parts.append(f"{self.cut:,} cut at max_length")
        if self.dropped:
            parts.append(f"{self.dropped:,} left out, since nothing to train on was left of them")
        return "; ".join(parts)


def statistics(encoded: Encoded) -> Statistics:
    """Count a tokenized set.

    Args:
        encoded: From `encode` or `encode_preferences`.
    """
    columns = {name: encoded.rows.data.column(name).combine_chunks() for name in encoded.rows.column_names}
    if COLUMNS[0] in columns:
        prompt, chosen, rejected = (np.asarray(columns[name].value_lengths()) for name in COLUMNS)
        lengths = np.concatenate([prompt + chosen, prompt + rejected])
        trained = int(chosen.sum() + rejected.sum())
    else:
        lengths = np.asarray(columns["input_ids"].value_lengths())
        trained = int((np.asarray(columns["labels"].flatten()) != IGNORED).sum())
    ordered = np.sort(lengths) if len(lengths) else np.zeros(1, dtype=int)
    return Statistics(
        examples=len(encoded.rows),
        tokens=int(lengths.sum()),
        trained=trained,
        shortest=int(ordered[0]),
        median=int(ordered[(len(ordered) - 1) // 2]),
        p95=int(ordered[int(np.ceil(0.95 * len(ordered))) - 1]),
        longest=int(ordered[-1]),
        cut=encoded.cut,
        dropped=encoded.dropped,
    )


def show_example(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int], *, colour: bool = False
) -> str:
    """Write an example out with its learned part marked; what does not print is escaped, except ends of lines.

    Args:
        tokenizer: What made the ids.
        ids: Token ids.
        labels: Their labels.
        colour: Underline in green, in place of ⟦ and ⟧.
    """
    opening, closing = _COLOURS if colour else _MARKS
    written, end, pieces = "", 0, []
    for learned, run in groupby(labels, key=lambda label: label != IGNORED):
        end += len(list(run))
        # Decoded from the beginning each time: the first blank of a run is lost where it is decoded alone.
        whole = str(tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        piece, written = whole[len(written) :], whole
        shown = "\n".join(printable(line) for line in piece.split("\n"))
        pieces.append(f"{opening}{shown}{closing}" if learned else shown)
    return "".join(pieces)
