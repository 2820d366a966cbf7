"""The answers that an example may be given, one of which is right: listed, or named in the question."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from randlora.errors import DataError

COLUMN = "choices"

_FORMAT = re.compile(r"answer format:\s*([^\s/]+(?:/[^\s/]+)+)", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """Answers to choose from.

    Attributes:
        candidates: Whole answers, each in the words of the example's own.
        right: The place of the example's own among them.
    """

    candidates: tuple[str, ...]
    right: int


def read_choice(
    row: Mapping[str, Any], question: str, answer: str, where: str, given: Sequence[str] | None = None
) -> Choice:
    """Find the answers to choose from: in the column `choices`, else those given, else "Answer format: a/b" in words.

    Args:
        row: The example's columns.
        question: What is asked.
        answer: The example's answer, which is one of the choices or ends with one ("the correct answer is answer1").
        where: The file and row, for the message of an error.
        given: Choices of all examples.

    Raises:
        DataError: There are no choices, fewer than two, or the answer is none of them.

    Example:
        >>> read_choice({}, "Is it? Answer format: true/false", "it is false", "here")
        Choice(candidates=('it is true', 'it is false'), right=1)
    """
    if row.get(COLUMN) is not None:
        found = _listed(row[COLUMN], f"{where}, column '{COLUMN}'")
    else:
        found = _listed(given, "data.choices") if given is not None else named_choices(question)
    if len(set(found)) < max(2, len(found)):
        expected = "two or more different choices, in the column 'choices', in data.choices, or as 'Answer format: a/b'"
        raise DataError(where, expected=expected, got=", ".join(map(repr, found)) or "none")
    said = answer.rstrip()
    # "black cat" and not "cat", where both are choices.
    right = max((choice for choice in found if _ends_with(said, choice)), key=len, default=None)
    if right is None:
        got = repr(said if len(said) <= 60 else f"…{said[-60:]}")
        raise DataError(where, expected=f"an answer that ends with one of {', '.join(map(repr, found))}", got=got)
    before = said[: len(said) - len(right)]
    return Choice(tuple(before + choice for choice in found), found.index(right))


def _listed(value: Any, where: str) -> list[str]:
    if isinstance(value, str):  # CSV has no lists
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(where, expected="a JSON list of texts", got=repr(value[:60])) from error
    if not isinstance(value, Sequence) or not all(isinstance(choice, str) and choice.strip() for choice in value):
        raise DataError(where, expected="a list of texts", got=repr(value)[:60])
    return [choice.strip() for choice in value]


def named_choices(question: str) -> list[str]:
    """The choices that a question names as "Answer format: a/b"; none where it does not."""
    found = _FORMAT.findall(question)
    return str(found[-1]).split("/") if found else []


def _ends_with(text: str, choice: str) -> bool:
    """Whether a text ends with a choice, and not amid a word."""
    before = text[: len(text) - len(choice)]
    return text.endswith(choice) and not (before[-1:].isalnum() and choice[:1].isalnum())
