"""A table from a folder of images, one folder per class."""

import os
from collections.abc import Iterator
from pathlib import Path

import datasets

from randlora.errors import DataError
from randlora.messages import printable
from randlora.tasks.paths import FILE, FOLDER, kind_of

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as an image in an image folder, in any case."""

_OF_TOOLS = frozenset({"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that systems and editors leave behind, beside those whose names begin with a dot."""


def read_image_folder(folder: Path, columns: tuple[str, str]) -> datasets.Dataset:
    """List the images of a folder with one folder per class, whose names are the labels.

    What hides (a name that begins with a dot) and what tools leave behind is passed over.

    Args:
        folder: The folder.
        columns: Names of the columns for the images and the labels.

    Returns:
        A table of whole paths, as in a column of `datasets.Image`, and class names.

    Raises:
        DataError: There is no class, or one has no image, a folder in it, an image that is no file, or a name that is
            not UTF-8.
    """
    images, labels = [], []
    try:
        for kind in _visible(folder):
            if kind_of(kind) != FOLDER:
                continue
            for image in _images(kind):
                # As bytes, since a file's name need not be text.
                images.append({"bytes": None, "path": os.fsencode(image.absolute())})
                labels.append(_label(kind))
    except OSError as error:
        raise DataError(str(folder), expected="a folder that can be read", got=error.strerror or str(error)) from error
    if not images:
        raise DataError(
            str(folder), expected="one folder per class with images in it (a table is named as a file)", got="no image"
        )
    image_feature = {"bytes": datasets.Value("binary"), "path": datasets.Value("binary")}
    features = datasets.Features({columns[0]: image_feature, columns[1]: datasets.Value("string")})
    return datasets.Dataset.from_dict({columns[0]: images, columns[1]: labels}, features=features)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in _OF_TOOLS)


def _images(folder: Path) -> Iterator[Path]:
    """The images of one class."""
    count = 0
    for path in _visible(folder):
        kind = kind_of(path)
        if kind == FOLDER:
            raise DataError(str(folder), expected="images and no folders in a class", got=f"the folder {path.name}")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            if kind != FILE:
                raise DataError(str(path), expected="an image file", got=kind, hint="remove it")
            count += 1
            yield path
    if count == 0:
        raise DataError(
            str(folder),
            expected=f"images of a class, ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
            got="none",
            hint="remove the folder, or put images in it",
        )


def _label(folder: Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            str(folder.parent),
            expected="class folders with names in UTF-8",
            got=printable(folder.name),
            hint="rename the folder",
        ) from error
    return folder.name
