"""Texts to tokens: which characters each token has, and so whether it is learned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.tasks.language.rendering import Rendered
from randlora.tasks.language.templates import Span

_SEAMS = (("a", "b"), ("a", " b"), ("a ", "b"), ("a\n", "b"))


@dataclass(frozen=True)
class Tokens:
    """A tokenized example.

    Attributes:
        ids: Token ids.
        learned: For each, whether it carries a loss.
    """

    ids: list[int]
    learned: list[bool]


class Encoder:
    """A tokenizer as the masks need it.

    Args:
        tokenizer: A fast one, with an end-of-sequence token.

    Raises:
        DataError: It is slow, which knows no characters of its tokens, or has no end-of-sequence token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        name = f"the tokenizer {type(tokenizer).__name__}"
        if not tokenizer.is_fast:
            raise DataError(name, expected="one of the tokenizers library", got="a slow one", hint="use_fast=True")
        if tokenizer.eos_token_id is None:
            raise DataError(name, expected="an end-of-sequence token", got="none", hint="set eos_token")
        self._tokenizer = tokenizer
        self._end: int = tokenizer.eos_token_id
        self._special = frozenset(
            [*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)]
        )
        self._opening = _opening(tokenizer)
        self._in_parts = all(self._joins(before, after) for before, after in _SEAMS)

    def encode(self, batch: Sequence[Rendered]) -> list[Tokens]:
        """Tokenize texts together, which the tokenizers library does in parallel.

        A text is tokenized in parts, each beginning where learning begins: at inference the prompt is tokenized alone,
        and what follows it in training must not change its tokens (two line breaks are one token at a text's end, and
        two before a word). Tokenizers that set a blank before every text cannot be given parts.
        """
        parts = [_parts(rendered) if self._in_parts else [(0, rendered.text)] for rendered in batch]
        encoded = self._tokenizer(
            [part for row in parts for _, part in row],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        pieces = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [self._assemble(rendered, row, pieces) for rendered, row in zip(batch, parts, strict=True)]

    def _assemble(
        self, rendered: Rendered, parts: list[tuple[int, str]], pieces: Iterator[tuple[list[int], list[Span]]]
    ) -> Tokens:
        ids: list[int] = []
        covered: list[Span] = []
        for (start, _), (part_ids, offsets) in zip(parts, pieces, strict=False):
            ids.extend(part_ids)
            covered.extend((first + start, last + start) for first, last in _covered(offsets))
        learned = _learned(covered, rendered.learned)
        starts = {start for start, _ in rendered.learned}
        # A special token that swallows the blanks behind it still belongs to the prompt that it ends.
        for place, (first, last) in enumerate(covered):
            if ids[place] in self._special and any(first < start < last for start in starts):
                learned[place] = False
        if not rendered.opened and self._opening and ids[: len(self._opening)] != self._opening:
            # What is learned from its first character is learned from the tokenizer's opening tokens on.
            whole = bool(rendered.learned) and rendered.learned[0][0] == 0
            ids, learned = [*self._opening, *ids], [*([whole] * len(self._opening)), *learned]
        if not rendered.closed:
            ids, learned = [*ids, self._end], [*learned, True]
        return Tokens(ids, learned)

    def _joins(self, before: str, after: str) -> bool:
        """Whether two parts read as the text that they are cut from."""

        def read(*texts: str) -> str:
            ids = [token for text in texts for token in self._tokenizer(text, add_special_tokens=False)["input_ids"]]
            return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        return read(before, after) == read(before + after)


def _parts(rendered: Rendered) -> list[tuple[int, str]]:
    """A text cut where learning begins or as it says, each part with the number of its first character."""
    begins = [start for start, _ in rendered.learned] if rendered.cut is None else [rendered.cut]
    cuts = sorted({0, *begins})
    return [(start, rendered.text[start:end]) for start, end in zip(cuts, [*cuts[1:], None], strict=True)]


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that a tokenizer sets before a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    for place in range(len(dressed) - len(bare) + 1):
        if dressed[place : place + len(bare)] == bare:
            return list(dressed[:place])
    return []


def _covered(offsets: list[Span]) -> list[Span]:
    """The characters of each token, blanks included.

    Many tokenizers leave the blanks at a token's beginning out of its offsets, and a token of blanks alone is then
    nowhere. Byte-level ones split a character into several tokens, which all have that character.
    """
    covered = []
    reach = 0
    for start, end in offsets:
        covered.append((min(start, reach), max(end, min(start, reach))))
        reach = max(reach, end)
    return covered


def _learned(covered: list[Span], spans: Sequence[Span]) -> list[bool]:
    learned = []
    place = 0
    for first, last in covered:
        while place < len(spans) and spans[place][1] <= first:
            place += 1
        learned.append(place < len(spans) and max(last, first + 1) > spans[place][0])
    return learned
