"""Labelled examples: rows with their labels as numbers, the same numbers in training and test."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from randlora.errors import DataError
from randlora.tasks.config import DataConfig
from randlora.tasks.rows import is_local, load_rows


@dataclass(frozen=True)
class Examples:
    """One split.

    Attributes:
        rows: The table.
        column: Name of the input column in it.
        labels: Class of each row, counted from 0.
        source: Where the rows come from, for messages.
    """

    rows: datasets.Dataset
    column: str
    labels: list[int]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int]) -> "Examples":
        """The examples at `indices`, in that order."""
        labels = [self.labels[index] for index in indices]
        return Examples(self.rows.select(indices), self.column, labels, self.source)


def load_training(data: DataConfig, column: str, *, seed: int) -> tuple[Examples, list[str]]:
    """Read the training split, name its classes, and draw the shots or the fraction asked for.

    Args:
        data: The data section of the config.
        column: Name of the input column.
        seed: Seed of the draw; the same seed draws the same rows.

    Returns:
        The examples, and the label names in the order of their numbers.

    Raises:
        DataError: The data cannot be read, a label is missing, or a class has fewer rows than `data.shots`.
    """
    rows = load_rows(data.train, split="train", columns=(column, data.label_column))
    values = _label_texts(rows, data.label_column, data.train)
    names = _label_names(rows, data.label_column, values)
    number = {name: index for index, name in enumerate(names)}
    examples = Examples(rows, column, [number[value] for value in values], data.train)
    return _draw(examples, names, data, seed), names


def load_test(data: DataConfig, column: str, label_names: Sequence[str]) -> Examples:
    """Read the test split, with the label numbers of the training split.

    Args:
        data: The data section of the config.
        column: Name of the input column.
        label_names: Names of the classes in training, in the order of their numbers.

    Raises:
        DataError: The data cannot be read, none is named, or a label was not seen in training.
    """
    source = data.test or data.train
    if data.test is None and is_local(data.train):
        raise DataError("data.test", expected="a file or folder with test data", got="none")
    rows = load_rows(source, split="test", columns=(column, data.label_column))
    number = {name: index for index, name in enumerate(label_names)}
    values = _label_texts(rows, data.label_column, source)
    for row, value in enumerate(values):
        if value not in number:
            raise DataError(
                f"{source}: row {row}, column '{data.label_column}'",
                expected=f"one of the {len(number)} labels seen in training",
                got=f"'{value}'",
                hint="remove the row or train with this label",
            )
    return Examples(rows, column, [number[value] for value in values], source)


def _label_texts(rows: datasets.Dataset, column: str, source: str) -> list[str]:
    """The labels as strings, whatever their kind, so that splits of different kinds can be compared."""
    feature = rows.features[column]
    to_text = feature.int2str if hasattr(feature, "int2str") else str
    texts = []
    for row, value in enumerate(rows[column]):
        # The hub marks rows of hidden labels with -1.
        absent = value is None or value == "" or (hasattr(feature, "int2str") and value < 0)
        if absent or not isinstance(value, str | int):
            got = "none" if absent else f"{value!r}"
            raise DataError(
                f"{source}: row {row}, column '{column}'", expected="a string or a whole number as label", got=got
            )
        texts.append(to_text(value))
    return texts


def _label_names(rows: datasets.Dataset, column: str, values: list[str]) -> list[str]:
    feature = rows.features[column]
    if hasattr(feature, "int2str"):
        return list(feature.names)
    numeric = all(isinstance(value, int) for value in rows[column])
    return sorted(set(values), key=_as_number if numeric else None)


def _as_number(text: str) -> Any:
    return {"False": 0, "True": 1}.get(text) if text in ("False", "True") else int(text)


def _draw(examples: Examples, names: Sequence[str], data: DataConfig, seed: int) -> Examples:
    """A seeded draw of `data.shots` rows, or of the fraction `data.fraction`, from each class."""
    if data.shots is None and data.fraction is None:
        return examples
    members: dict[int, list[int]] = {}
    for row, label in enumerate(examples.labels):
        members.setdefault(label, []).append(row)
    generator = random.Random(seed)  # noqa: S311 - a repeatable draw, nothing secret
    chosen: list[int] = []
    for label in sorted(members):
        rows = members[label]
        count = data.shots if data.shots is not None else max(1, round((data.fraction or 1.0) * len(rows)))
        if count > len(rows):
            raise DataError(
                "data.shots",
                expected=f"at most {len(rows)}, the rows of class '{names[label]}' in {examples.source}",
                got=str(count),
            )
        chosen.extend(generator.sample(rows, count))
    return examples.select(sorted(chosen))


def require_texts(examples: Examples) -> None:
    """Check that every input is a string with something in it.

    Raises:
        DataError: One is not; the message names the row.
    """
    values: Iterable[Any] = examples.rows[examples.column]
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{examples.source}: row {row}, column '{examples.column}'", expected="a text", got=repr(value)
            )
