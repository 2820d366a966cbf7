"""Rows of a data set: from the hub, a file or an image folder to one table."""

from pathlib import Path

import datasets

from randlora.errors import DataError

LOADERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""File endings that can be read, and the loader of `datasets` that reads them."""

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as an image in an image folder."""


def is_local(source: str) -> bool:
    """Whether `source` names a file or a folder here rather than a data set on the hub."""
    return Path(source).suffix.lower() in LOADERS or Path(source).exists() or source.startswith((".", "/", "~"))


def check_source(source: str, key: str) -> None:
    """Check that a local source exists, is not empty and is of a kind that can be read; the hub is not asked.

    Args:
        source: Hub name, file or folder.
        key: The config key it comes from, for the message.

    Raises:
        DataError: It is missing, empty or of another kind.
    """
    if not is_local(source):
        return
    path = Path(source)
    if not path.exists():
        raise DataError(key, expected="a data file or folder", got=f"{source}, which does not exist")
    if path.is_dir():
        if not any(path.iterdir()):
            raise DataError(key, expected="a folder with one folder of images per class", got=f"{source}, empty")
    elif path.suffix.lower() not in LOADERS:
        raise DataError(key, expected=f"a file ending in {', '.join(LOADERS)}", got=source)
    elif path.stat().st_size == 0:
        raise DataError(key, expected="a data file with rows", got=f"{source}, which is empty")


def load_rows(source: str, *, split: str, columns: tuple[str, str]) -> datasets.Dataset:
    """Read one split.

    Args:
        source: Hub name, file or image folder.
        split: The hub data set's split; a file or folder holds one split only.
        columns: Names of the input and the label column.

    Returns:
        A table with at least these two columns and at least one row.

    Raises:
        DataError: It cannot be read, is empty, or lacks a column.
    """
    rows = _image_folder(Path(source), columns) if Path(source).is_dir() else _table(source, split)
    for column in columns:
        if column not in rows.column_names:
            raise DataError(
                f"{source}",
                expected=f"a column '{column}'",
                got=f"the columns {', '.join(rows.column_names)}",
                hint="name the right ones in data.text_column, data.image_column and data.label_column",
            )
    if len(rows) == 0:
        raise DataError(f"{source}", expected="at least one row", got="none")
    return rows


def _table(source: str, split: str) -> datasets.Dataset:
    loader = LOADERS.get(Path(source).suffix.lower())
    # Texts and labels such as "NA" or "null" are words here, not missing numbers.
    options = {"keep_default_na": False} if loader == "csv" else {}
    try:
        if loader is None:
            return datasets.load_dataset(source, split=split)
        return datasets.load_dataset(loader, data_files=source, split="train", **options)
    # `datasets` wraps whatever its parsers and the network raise in several unrelated classes.
    except Exception as error:
        cause = error.__cause__ or error
        raise DataError(
            source,
            expected=f"a readable {loader} file" if loader else f"a hub data set with a split '{split}'",
            got=f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}",
            hint="check the file" if loader else "check the name, data.test and the connection",
        ) from error


def _image_folder(folder: Path, columns: tuple[str, str]) -> datasets.Dataset:
    """A table of paths and class names from a folder of one folder per class."""
    pairs = [
        (str(path), kind.name)
        for kind in sorted(folder.iterdir())
        if kind.is_dir()
        for path in sorted(kind.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not pairs:
        raise DataError(str(folder), expected="one folder per class with images in it", got="no image")
    images, labels = zip(*pairs, strict=True)
    return datasets.Dataset.from_dict({columns[0]: list(images), columns[1]: list(labels)})
