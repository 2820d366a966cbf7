"""Labelled examples: rows with their labels as numbers, the same numbers in training and test."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import datasets

from randlora.errors import DataError
from randlora.tasks.classification.config import ClassificationData
from randlora.tasks.classification.drawing import draw, hold_out
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
        labels: Class of each row, counted from 0; in a regression its number.
        source: Where the rows come from, for messages.
        numbers: The row of each example in the source; empty where they are all rows in their order.
        pair: Name of the column of second texts, or None.
    """

    rows: datasets.Dataset
    column: str
    labels: list[Any]
    source: str
    numbers: Sequence[int] = ()
    pair: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int]) -> "Examples":
        """The examples at `indices`, in that order."""
        labels = [self.labels[index] for index in indices]
        numbers = [self.row(index) for index in indices]
        return replace(self, rows=self.rows.select(indices), labels=labels, numbers=numbers)

    @property
    def inputs(self) -> list[str]:
        """Names of the input columns: one, or two of texts."""
        return [self.column] if self.pair is None else [self.column, self.pair]

    def row(self, index: int) -> int:
        """The row of an example in the source."""
        return self.numbers[index] if self.numbers else index


@dataclass(frozen=True)
class Columns:
    """What a task reads of a table.

    Attributes:
        text: Name of the input column.
        pair: Name of the column of second texts, or None.
        names: Names of all columns of files without a line of them, or None.
        numbers: Whether the labels are numbers to predict.
    """

    text: str
    pair: str | None = None
    names: Sequence[str] | None = None
    numbers: bool = False


def load_training(
    data: ClassificationData, columns: Columns | str, *, seed: int
) -> tuple[Examples, Examples | None, list[str]]:
    """Read the training data, name its classes, set a validation split apart, and draw the shots or the fraction.

    The validation split is drawn before the shots, so it is the same for all budgets.

    Args:
        data: The data section of the config.
        columns: What is read; a string is the name of the input column.
        seed: Seed of the draws; the same seed draws the same rows.

    Returns:
        The training examples, the validation examples that were set apart (None where `data.validation` is not a share
        or a number), and the label names in the order of their numbers; of a regression that of the label column.

    Raises:
        DataError: The data cannot be read, a label is missing, all labels are the same, a class has fewer rows than
            `data.shots`, or `data.validation` leaves too few rows.
    """
    columns = Columns(columns) if isinstance(columns, str) else columns
    rows = _load(data.train, "train", data, columns)
    if columns.numbers:
        names = [data.label_column]
        labels: list[Any] = _label_numbers(rows, data.label_column, data.train)
        strata = [0] * len(labels)
    else:
        values = _label_texts(rows, data.label_column, data.train)
        names = _label_names(rows, data.label_column, values)
        number = {name: index for index, name in enumerate(names)}
        strata = [number[value] for value in values]
        labels = list(strata)
    if len(set(labels)) == 1:
        expected, got = ("two numbers", labels[0]) if columns.numbers else ("two classes", names[labels[0]])
        place = f"{data.train}: column '{data.label_column}'"
        raise DataError(place, expected=f"{expected} or more", got=f"only '{got}'")
    examples = Examples(rows, columns.text, labels, data.train, pair=columns.pair)
    trained = len(names) if columns.numbers else data.trained_classes(len(names))
    if trained < len(names):
        examples = examples.select([row for row, label in enumerate(labels) if label < trained])
        labels, strata = examples.labels, list(examples.labels)
    held: list[int] = []
    if isinstance(data.validation, int | float):
        held = hold_out(strata, data.validation, seed, data.train)
    without = set(held)
    left = [row for row in range(len(labels)) if row not in without]
    drawn = draw([strata[row] for row in left], names, data, seed)
    chosen = [left[place] for place in drawn]
    train = examples if len(chosen) == len(labels) else examples.select(chosen)
    return train, examples.select(held) if held else None, names


def load_labelled(
    source: str, split: str, data: ClassificationData, columns: Columns | str, label_names: Callable[[], Sequence[str]]
) -> Examples:
    """Read a split beside the training data, with the label numbers of these.

    Args:
        source: Hub name, file or folder.
        split: "validation" or "test": the hub data set's split where the name has none.
        data: The data section of the config.
        columns: What is read; a string is the name of the input column.
        label_names: Gives the names of the classes in training, in the order of their numbers; it is asked after the
            rows are read, so that what is wrong with these is said whatever is wrong with the training data.

    Raises:
        DataError: The data cannot be read, or a label was not seen in training.
    """
    columns = Columns(columns) if isinstance(columns, str) else columns
    rows = _load(source, split, data, columns)
    if columns.numbers:
        labels = _label_numbers(rows, data.label_column, source)
        return Examples(rows, columns.text, labels, source, pair=columns.pair)
    values = _label_texts(rows, data.label_column, source)
    number = {name: index for index, name in enumerate(label_names())}
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
    return Examples(rows, columns.text, [number[value] for value in values], source, pair=columns.pair)


def _load(source: str, split: str, data: ClassificationData, columns: Columns) -> datasets.Dataset:
    inputs = [columns.text] if columns.pair is None else [columns.text, columns.pair]
    wanted = (*inputs, data.label_column)
    return load_rows(source, split=split, columns=wanted, subset=data.subset, names=columns.names)


def _label_numbers(rows: datasets.Dataset, column: str, source: str) -> list[float]:
    """The labels as numbers; those of CSV and JSON are strings as written."""
    numbers = []
    for row, value in enumerate(rows[column]):
        try:
            absent = value is None or isinstance(value, bool) or "_" in str(value)  # 1_0 is a number of Python's
            number = float("nan" if absent else value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            place = f"{source}: row {row}, column '{column}'"
            raise DataError(place, expected="a number as label", got="none" if value in (None, "") else repr(value))
        numbers.append(number)
    return numbers


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


def require_texts(examples: Examples) -> None:
    """Check that every input is a string with something in it; of two texts one may be empty.

    Raises:
        DataError: One is not; the message names the row.
    """
    for index, values in enumerate(zip(*(examples.rows[column] for column in examples.inputs), strict=True)):
        blank = not any(isinstance(value, str) and value.strip() for value in values)
        for column, value in zip(examples.inputs, values, strict=True):
            if blank or not isinstance(value, str):
                raise DataError(
                    f"{examples.source}: row {examples.row(index)}, column '{column}'",
                    expected="a text",
                    got="an image" if isinstance(value, dict) else repr(value),
                )
