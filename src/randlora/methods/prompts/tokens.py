"""Captions of classes as token numbers, with places left for a trained context."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from randlora.errors import ConfigError, DataError

Position = Literal["end", "middle", "front"]


@dataclass(frozen=True)
class ClassTokens:
    """A caption for each class.

    Attributes:
        ids: Token numbers, padded behind the end; 0 where the context goes.
        places: Where the vectors of the context go.
        last: Place of the end token, where CLIP reads a caption's features.
    """

    ids: Int[Tensor, "classes tokens"]
    places: Int[Tensor, "classes length"]
    last: Int[Tensor, " classes"]

    def __getitem__(self, rows: slice | Tensor) -> "ClassTokens":
        """The captions of some classes."""
        return ClassTokens(self.ids[rows], self.places[rows], self.last[rows])


@dataclass(frozen=True)
class Words:
    """A tokenizer's numbers of what surrounds the context.

    Attributes:
        start: What every caption begins with.
        end: What it ends with.
        names: The class names, one after the other.
        behind: What stands between the context and the name: words of the start that are not trained.
        dot: What stands behind all.
    """

    start: Sequence[int]
    end: Sequence[int]
    names: Sequence[Sequence[int]]
    behind: Sequence[int]
    dot: Sequence[int]


def numbers(tokenizer: Any, text: str) -> list[int]:
    """A text's token numbers, without start and end."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def words_of(tokenizer: Any, names: Sequence[str], behind: Sequence[int]) -> Words:
    """What surrounds the context, from CLIP's tokenizer.

    Args:
        tokenizer: It has to set a start and an end.
        names: The class names.
        behind: See `Words`.

    Raises:
        ConfigError: It sets none.
    """
    empty = list(tokenizer("")["input_ids"])
    if len(empty) != 2:
        expected = "a tokenizer that sets one token before a text and one behind it"
        raise ConfigError("model", expected=expected, got=f"{len(empty)} around no text")
    return Words(empty[:1], empty[1:], [numbers(tokenizer, name) for name in names], behind, numbers(tokenizer, "."))


def class_tokens(words: Words, names: Sequence[str], length: int, longest: int, position: Position) -> ClassTokens:
    """Captions: start, context, name, dot, end.

    Args:
        words: The numbers.
        names: The class names, for messages.
        length: Vectors of the context.
        longest: Tokens that the text tower has positions for.
        position: Where the name stands: behind the context, between its halves, or before it.

    Raises:
        DataError: A name is longer than the context leaves room for.
    """
    rows, places = [], []
    room = longest - length - sum(map(len, (words.start, words.end, words.behind, words.dot)))
    context = [0] * length
    before = {"end": length, "middle": length // 2, "front": 0}[position]
    for name, own in zip(names, words.names, strict=True):
        if len(own) > room:
            expected = f"names of at most {max(room, 0)} tokens beside a context of {length}"
            hint = "a smaller method.options.length leaves more room"
            raise DataError("data.class_names", expected=expected, got=f"{len(own)} in '{name}'", hint=hint)
        behind = list(words.behind)
        rows.append([*words.start, *context[:before], *behind, *own, *context[before:], *words.dot, *words.end])
        first = len(words.start)
        skipped = len(behind) + len(own)
        places.append([first + index + (skipped if index >= before else 0) for index in range(length)])
    width = max(map(len, rows))
    padded = [row + [words.end[0]] * (width - len(row)) for row in rows]
    return ClassTokens(torch.tensor(padded), torch.tensor(places), torch.tensor([len(row) - 1 for row in rows]))
