"""Rows of a data set: from the hub, a file or an image folder to one table."""

import re
from collections.abc import Sequence

import datasets

from randlora.errors import DataError
from randlora.tasks.columns import require_columns
from randlora.tasks.image_folder import read_image_folder
from randlora.tasks.paths import FILE, FOLDER, NOTHING, kind_of, local
from randlora.tasks.tables import SUFFIXES, read_table

_HUB = re.compile(r"(?P<name>[^:]+):(?P<split>[^:]+)")


def is_local(source: str) -> bool:
    """Whether `source` names a file or a folder here rather than a data set on the hub."""
    path = local(source)
    return path.suffix.lower() in SUFFIXES or source.startswith((".", "/", "~")) or kind_of(path) != NOTHING


def named_split(source: str, split: str) -> tuple[str, str]:
    """The name of a hub data set and its split, of `NAME` or `NAME:SPLIT`.

    Args:
        source: As in a config; not of this machine.
        split: The split where the name has none.

    Example:
        >>> named_split("imdb:test", "train"), named_split("imdb", "train")
        (('imdb', 'test'), ('imdb', 'train'))
    """
    named = _HUB.fullmatch(source)
    return (named["name"], named["split"]) if named else (source, split)


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
        source: Hub name, alone or as `NAME:SPLIT`, file or image folder.
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
        rows = _from_hub(source, split, subset)
        require_columns(source, columns, rows.column_names)
    else:
        check_source(source, source)
        folder = kind_of(path) == FOLDER
        rows = read_image_folder(path, (columns[0], columns[-1])) if folder else read_table(path, columns, names)
    if len(rows) == 0:
        raise DataError(source, expected="at least one row", got="none")
    return rows


def _from_hub(source: str, split: str, subset: str | None) -> datasets.Dataset:
    name, split = named_split(source, split)
    try:
        return datasets.load_dataset(name, subset, split=split)
    # `datasets` wraps whatever its parsers and the network raise in several unrelated classes.
    except Exception as error:
        cause = error.__cause__ or error
        raise DataError(
            source,
            expected=f"a hub data set with a split '{split}'",
            got=f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}",
            hint="check the name and the connection; NAME:SPLIT names a split",
        ) from error
