"""Rows of a data set: from the hub, a file or an image folder to one table."""

import re
from collections.abc import Sequence

import datasets

from randlora.errors import DataError
from randlora.tasks.columns import require_columns
from randlora.tasks.hub import hub_rows
from randlora.tasks.image_folder import read_image_folder
from randlora.tasks.paths import FILE, FOLDER, NOTHING, kind_of, local
from randlora.tasks.tables import SUFFIXES, read_table


def is_local(source: str) -> bool:
    """Whether `source` names a file or a folder here rather than a data set on the hub."""
    path = local(source)
    return path.suffix.lower() in SUFFIXES or source.startswith((".", "/", "~")) or kind_of(path) != NOTHING


def check_source(source: str, key: str) -> None:
    """Check that a local source exists, is not empty and is of a kind that can be read; the hub is not asked.

    Args:
        source: Hub name, file or folder.
        key: The config key it comes from, for the message.

    Raises:
        DataError: It is missing, empty or of another kind.
    """
    if not source.strip():
        raise DataError(key, expected="a hub name, a data file or an image folder", got="nothing")
    if not is_local(source):
        if not re.search("[A-Za-z]", source):  # a name on the hub has a letter
            hint = "a share is a number as 0.1, without quotes" if key == "data.validation" else ""
            raise DataError(key, expected="a hub name, a data file or an image folder", got=source, hint=hint)
        return
    path = local(source)
    kind = kind_of(path)
    if kind == NOTHING:
        raise DataError(key, expected="a data file or folder", got=f"{source}, which does not exist")
    if kind == FOLDER:
        if not any(path.iterdir()):
            raise DataError(key, expected="a folder with one folder of images per class", got=f"{source}, empty")
        return
    if kind != FILE:
        raise DataError(key, expected="a data file or folder", got=f"{source}: {kind}")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(key, expected=f"a file ending in {', '.join(SUFFIXES)}", got=source)
    if path.stat().st_size == 0:
        raise DataError(key, expected="a data file with rows", got=f"{source}, which is empty")


def load_rows(
    source: str,
    *,
    split: str,
    columns: Sequence[str],
    subset: str | None = None,
    names: Sequence[str] | None = None,
) -> datasets.Dataset:
    """Read one split.

    Args:
        source: Hub name, see `hub_rows`, file or image folder.
        split: The hub data set's split where the name has none; a file or folder holds one split only.
        columns: Names of the input columns, and of the label column.
        subset: The hub data set's configuration, where it has several.
        names: Names of all columns of CSV and TSV files without a line of them.

    Returns:
        A table with at least these columns and at least one row.

    Raises:
        DataError: It cannot be read, is empty, or lacks a column.
    """
    if columns[-1] in columns[:-1]:
        raise DataError("data.label_column", expected="another column than that of the inputs", got=f"'{columns[-1]}'")
    path = local(source)
    if not is_local(source):
        rows = hub_rows(source, split, subset)
        require_columns(source, columns, rows.column_names)
    else:
        check_source(source, source)
        folder = kind_of(path) == FOLDER
        rows = read_image_folder(path, (columns[0], columns[-1])) if folder else read_table(path, columns, names)
    if len(rows) == 0:
        raise DataError(source, expected="at least one row", got="none")
    return rows
