"""scikit-learn's handwritten digits (1,797 scans of 8×8 pixels) as train and test files."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from randlora.demo.glyphs import DIGIT_NAMES
from randlora.files import new_folder


class DigitFiles(NamedTuple):
    """The two parquet files; column `image` holds PNG images, column `label` class labels zero to nine."""

    train: Path
    test: Path


def upscale(image: np.ndarray, size: int) -> np.ndarray:
    """A scan with levels 0 to 16 as a grey picture.

    Args:
        image: Float array (8, 8), values 0 (paper) to 16 (ink).
        size: Side of the result in pixels.

    Returns:
        uint8 array (size, size), light ink on dark paper.
    """
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC))


def split_digits(seed: int = 0, test_share: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and the test scans.

    Args:
        seed: Decides which scans are for testing.
        test_share: Share of each class, in (0, 1).

    Returns:
        Two sorted int arrays that share nothing and together hold every scan.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 -- an optional package
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    labels = load_digits().target
    train, test = train_test_split(np.arange(len(labels)), test_size=test_share, stratify=labels, random_state=seed)
    return np.sort(train), np.sort(test)


def write_digits(folder: Path, size: int = 16, seed: int = 0) -> DigitFiles:
    """Write the digits for the image-text task.

    Args:
        folder: A new folder, made here, or one that this function has filled before.
        size: Side of the images in pixels.
        seed: Decides the split.

    Raises:
        OutputError: The folder cannot be written or holds something else.
    """
    files = DigitFiles(folder / "train.parquet", folder / "test.parquet")
    if all(file.is_file() for file in files):
        return files
    train, test = split_digits(seed)
    with new_folder(folder) as unfinished:
        _write_rows(unfinished / files.train.name, train, size)
        _write_rows(unfinished / files.test.name, test, size)
    return files


def _write_rows(path: Path, indices: np.ndarray, size: int) -> None:
    import datasets  # noqa: PLC0415 -- optional packages
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    schema = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(DIGIT_NAMES))})
    images = [{"bytes": _png(upscale(digits.images[index], size)), "path": None} for index in indices]
    rows = {"image": images, "label": [int(digits.target[index]) for index in indices]}
    datasets.Dataset.from_dict(rows, features=schema).to_parquet(str(path))


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
