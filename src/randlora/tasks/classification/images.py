"""Images: encoded bytes or paths in, normalized tensors out."""

import random
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
from torch import Tensor
from torch.utils.data import Dataset

from randlora.errors import DataError
from randlora.tasks.classification.labelled import Examples
from randlora.tasks.classification.preprocessing import Preprocessing
from randlora.tasks.classification.viewing import view
from randlora.tasks.paths import FILE, kind_of, local, path_of_cell


def require_image_files(examples: Examples) -> None:
    """Check that there is a file at every path in a column of paths.

    Raises:
        DataError: There is none; the message names the row.
    """
    if examples.rows.features[examples.column] not in (datasets.Value("string"), datasets.Value("large_string")):
        return
    folder = _folder_of(examples)
    for index, name in enumerate(examples.rows[examples.column]):
        found = kind_of(folder / (name or ""))
        if found != FILE:
            place = f"{examples.source}: row {examples.row(index)}, column '{examples.column}'"
            raise DataError(place, expected="the path of an image", got=f"{name or 'no path'}: {found}")


def _folder_of(examples: Examples) -> Path:
    """What paths of images are relative to."""
    return local(examples.source).absolute().parent


class ImageRows(Dataset[dict[str, Any]]):
    """Images and labels, read and preprocessed row by row.

    Args:
        examples: The rows; images as encoded bytes or as paths, relative to the folder of the data file.
        preprocessing: What the model expects.
        augment_seed: Seed of the augmentation; None means none.

    Raises:
        DataError: When a row is read whose image cannot be; the message names row and file.
    """

    def __init__(self, examples: Examples, preprocessing: Preprocessing, augment_seed: int | None = None) -> None:
        rows = examples.rows
        if isinstance(rows.features[examples.column], datasets.Image):
            # Decoding is done here, so that a broken image can be named.
            rows = rows.cast_column(examples.column, datasets.Image(decode=False))
        self.examples, self.preprocessing, self.augment_seed = examples, preprocessing, augment_seed
        self._rows = rows.select_columns([examples.column])
        self._folder = _folder_of(examples)
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        value = self._rows[index][self.examples.column]
        name = path_of_cell(value)
        try:
            pixels = self._pixels(self._open(value, name), index)
        # Pillow raises OSError, SyntaxError, ValueError and its own DecompressionBombError on bad files.
        except Exception as error:
            raise DataError(
                f"{self.examples.source}: row {self.examples.row(index)}{f' ({name})' if name else ''}",
                expected="an image that can be read",
                got=f"{type(error).__name__}: {error}",
                hint="replace the file or remove the row",
            ) from error
        return {"pixel_values": pixels, "labels": self.examples.labels[index]}

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops and flips from now on."""
        self._epoch = epoch

    def _open(self, value: Any, name: str) -> PIL.Image.Image:
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(encoded, bytes):
            return view(encoded)
        if not name:
            raise ValueError("neither an image nor a path")
        # Joining leaves absolute paths as they are.
        return view(self._folder / name)

    def _pixels(self, image: PIL.Image.Image, index: int) -> Tensor:
        if self.augment_seed is None:
            return self.preprocessing.plain(image)
        # A function of seed, epoch and row alone: a resumed run sees what an uninterrupted one does.
        generator = random.Random(f"{self.augment_seed}/{self._epoch}/{index}")  # noqa: S311 - no secret
        return self.preprocessing.augmented(image, generator)
