"""The test data of the E2E challenge: meanings, each with all its references."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from randlora.errors import DataError
from randlora.tasks.language.conversation import text_in
from randlora.tasks.language.forms import E2E, normalise
from randlora.tasks.language.questions import Question
from randlora.tasks.language.records import read_records
from randlora.tasks.paths import FILE, kind_of

DECODING: Mapping[str, Any] = MappingProxyType({"num_beams": 10, "length_penalty": 0.8, "no_repeat_ngram_size": 4})
"""The LoRA paper's, as arguments of transformers' `generate`; there the prompt's words count as repeated, too."""

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Meaning:
    """What is to be said.

    Attributes:
        question: The meaning as a prompt.
        references: Texts that say it.
    """

    question: Question
    references: tuple[str, ...]


def read_meanings(path: Path, limit: int | None = None) -> list[Meaning]:
    """Read a file with the columns `mr` and `ref`; rows of one meaning need not stand together.

    Args:
        path: A data file.
        limit: Meanings from the beginning that are read; None for all.

    Raises:
        DataError: It cannot be read, or a row is of another make; the message names it.
    """
    if (kind := kind_of(path)) != FILE:
        raise DataError(str(path), expected="a data file", got=kind)
    records = read_records(str(path))
    missing = [column for column in E2E.needs if column not in records.columns]
    if missing:
        found = ", ".join(f"'{column}'" for column in records.columns)
        raise DataError(str(path), expected="the columns 'mr' and 'ref'", got=found)
    questions: dict[str, Question] = {}
    references: dict[str, list[str]] = {}
    for index in range(len(records)):
        row, where = records[index], records.where(index)
        meaning = text_in(row.get("mr"), f"{where}, column 'mr'")
        if meaning not in questions:
            sample: Any = normalise(row, E2E, where)
            questions[meaning] = Question(where, sample, sample.completion)
        references.setdefault(meaning, []).append(text_in(row.get("ref"), f"{where}, column 'ref'"))
    return [Meaning(questions[meaning], tuple(references[meaning])) for meaning in list(questions)[:limit]]
