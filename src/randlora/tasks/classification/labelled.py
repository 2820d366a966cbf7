"""Labelled examples: rows with their labels as numbers, the same numbers in training and test."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import datasets

from randlora.errors import DataError
from randlora.tasks.classification.config import ClassificationData
from randlora.tasks.rows import load_rows

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

UNSEEN_SHOWN = 5
"""Labels unseen in training that a message lists; the others are counted."""


@dataclass(frozen=True)
class Examples:
    """One split.

    Attributes:
        rows: The table.
        column: Name of the input column in it.
        labels: Class of each row, counted from 0.
        source: Where the rows come from, for messages.
        numbers: The row of each example in the source; empty where they are all rows in their order.
    """

    rows: datasets.Dataset
    column: str
    labels: list[int]
    source: str
    numbers: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int]) -> "Examples":
        """The examples at `indices`, in that order."""
        labels = [self.labels[index] for index in indices]
        numbers = [self.row(index) for index in indices]
        return Examples(self.rows.select(indices), self.column, labels, self.source, numbers)

    def row(self, index: int) -> int:
        """The row of an example in the source."""
        return self.numbers[index] if self.numbers else index


def load_training(data: ClassificationData, column: str, *, seed: int) -> tuple[Examples, Examples | None, list[str]]:
    """Read the training data, name its classes, set a validation split apart, and draw the shots or the fraction.

    The validation split is drawn before the shots, so it is the same for all budgets.

    Args:
        data: The data section of the config.
        column: Name of the input column.
        seed: Seed of the draws; the same seed draws the same rows.

    Returns:
        The training examples, the validation examples that were set apart (None where `data.validation` is not a share
        or a number), and the label names in the order of their numbers.

    Raises:
        DataError: The data cannot be read, a label is missing, all labels are the same, a class has fewer rows than
            `data.shots`, or `data.validation` leaves too few rows.
    """
    rows = load_rows(data.train, split="train", columns=(column, data.label_column))
    values = _label_texts(rows, data.label_column, data.train)
    names = _label_names(rows, data.label_column, values)
    if len(set(values)) == 1:
        raise DataError(
            f"{data.train}: column '{data.label_column}'", expected="two classes or more", got=f"only '{values[0]}'"
        )
    number = {name: index for index, name in enumerate(names)}
    examples = Examples(rows, column, [number[value] for value in values], data.train)
    trained = data.trained_classes(len(names))
    if trained < len(names):
        examples = examples.select([row for row, label in enumerate(examples.labels) if label < trained])
    held_out = None
    if isinstance(data.validation, int | float):
        examples, held_out = _hold_out(examples, data.validation, seed)
    return _draw(examples, names, data, seed), held_out, names


def load_labelled(
    source: str, split: str, data: ClassificationData, column: str, label_names: Sequence[str]
) -> Examples:
    """Read a split beside the training data, with the label numbers of these.

    Args:
        source: Hub name, file or folder.
        split: "validation" or "test": the hub data set's split where the name has none.
        data: The data section of the config.
        column: Name of the input column.
        label_names: Names of the classes in training, in the order of their numbers.

    Raises:
        DataError: The data cannot be read, or a label was not seen in training.
    """
    rows = load_rows(source, split=split, columns=(column, data.label_column))
    number = {name: index for index, name in enumerate(label_names)}
    values = _label_texts(rows, data.label_column, source)
    unseen: dict[str, int] = {}
    for row, value in enumerate(values):
        if value not in number:
            unseen.setdefault(value, row)
    if unseen:
        shown = ", ".join(f"'{value}'" for value in list(unseen)[:UNSEEN_SHOWN])
        raise DataError(
            f"{source}: row {min(unseen.values())}, column '{data.label_column}'",
            expected=f"one of the {len(number)} labels seen in training",
            got=shown + (f" and {len(unseen) - UNSEEN_SHOWN} others" if len(unseen) > UNSEEN_SHOWN else ""),
            hint="remove the rows or train with these labels",
        )
    return Examples(rows, column, [number[value] for value in values], source)


def _hold_out(examples: Examples, wanted: float, seed: int) -> tuple[Examples, Examples]:
    """A seeded draw of validation examples, a share or a number; each class keeps one to train on."""
    count = round(wanted * len(examples)) if wanted < 1 else int(wanted)
    left = Counter(examples.labels)
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a repeatable draw, nothing secret
    held_out: set[int] = set()
    for row in order:
        if len(held_out) < count and left[examples.labels[row]] > 1:
            left[examples.labels[row]] -= 1
            held_out.add(row)
    if not held_out or len(held_out) < count:
        raise DataError(
            "data.validation",
            expected=f"from 1 to {len(examples) - len(left)} of the {len(examples)} rows of {examples.source}",
            got=f"{wanted:g}, which is {count}",
            hint="each class keeps a row to train on",
        )
    rest = [row for row in range(len(examples)) if row not in held_out]
    return examples.select(rest), examples.select(sorted(held_out))


def _label_texts(rows: datasets.Dataset, column: str, source: str) -> list[str]:
    """The labels as strings, whatever their kind, so that splits of different kinds can be compared."""
    feature = rows.features[column]
    to_text = getattr(feature, "int2str", None)
    texts = []
    for row, value in enumerate(rows[column]):
        # The hub marks rows of hidden labels with -1.
        absent = value is None or value == "" or (to_text is not None and value < 0)
        if absent or not isinstance(value, str | int) or (to_text is not None and value >= feature.num_classes):
            raise DataError(
                f"{source}: row {row}, column '{column}'",
                expected="a string or a whole number as label" if to_text is None else "a label of the file's schema",
                got="none" if absent else repr(value),
            )
        if to_text is not None:
            texts.append(to_text(value))
        else:
            texts.append(str(value).lower() if isinstance(value, bool) else str(value))
    return texts


def _label_names(rows: datasets.Dataset, column: str, values: list[str]) -> list[str]:
    """The classes in the order of their numbers: the schema's, that of their values, or that of their letters."""
    feature = rows.features[column]
    if hasattr(feature, "int2str"):
        return list(feature.names)
    names = sorted(set(values))
    return sorted(names, key=Decimal) if all(_NUMBER.fullmatch(name) for name in names) else names


def _draw(examples: Examples, names: Sequence[str], data: ClassificationData, seed: int) -> Examples:
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
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{examples.source}: row {examples.row(index)}, column '{examples.column}'",
                expected="a text",
                got="an image" if isinstance(value, dict) else repr(value),
            )
