"""Texts to tokens: each token's characters, and no token on both sides of the place where learning begins or ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from randlora.errors import DataError
from randlora.tasks.language.rendering import Rendered
from randlora.tasks.language.templates import Span


@dataclass(frozen=True)
class Tokens:
    """A tokenized example.

    Attributes:
        ids: Token ids.
        learned: For each, whether it carries a loss.
    """

    ids: list[int]
    learned: list[bool]


class Tokenizer:
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

    def encode(self, batch: Sequence[Rendered]) -> list[Tokens]:
        """Tokenize texts together, which the tokenizers library does in parallel."""
        texts = [rendered.text for rendered in batch]
        encoded = self._tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        return [
            self._finish(rendered, ids, offsets)
            for rendered, ids, offsets in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _finish(self, rendered: Rendered, ids: list[int], offsets: list[Span]) -> Tokens:
        ids, covered = self._split(rendered, ids, _covered(offsets))
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

    def _split(self, rendered: Rendered, ids: list[int], covered: list[Span]) -> tuple[list[int], list[Span]]:
        """Tokenize again in parts where a token holds the end of a prompt and the beginning of an answer.

        At inference the prompt is tokenized alone, so that the model never sees such a token. Tokenizers that set a
        blank before every text cannot be given parts: where the parts do not read as the whole, it stays as it is.
        """
        bounds = sorted({bound for span in rendered.learned for bound in span})
        cuts = [bound for bound in bounds if any(first < bound < last for first, last in covered)]
        if not cuts:
            return ids, covered
        parts_ids: list[int] = []
        parts_covered: list[Span] = []
        for start, end in zip([0, *cuts], [*cuts, len(rendered.text)], strict=True):
            part = self._tokenizer(rendered.text[start:end], add_special_tokens=False, return_offsets_mapping=True)
            parts_ids.extend(part["input_ids"])
            parts_covered.extend((first + start, last + start) for first, last in _covered(part["offset_mapping"]))
        same = self._read(parts_ids) == self._read(ids)
        return (parts_ids, parts_covered) if same else (ids, covered)

    def _read(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


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
