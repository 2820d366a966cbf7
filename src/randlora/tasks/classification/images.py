"""Images: encoded bytes or paths in, normalized tensors out, with Pillow and torch alone."""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.image_processing_base import ImageProcessingMixin

from randlora.errors import ConfigError, DataError
from randlora.tasks.classification.labelled import Examples
from randlora.tasks.classification.viewing import view
from randlora.tasks.paths import FILE, kind_of, local, path_of_cell
from randlora.tasks.sources import load

CROP_AREA = (0.5, 1.0)
"""Share of the image's area that a random crop keeps."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""

_SQUEEZED = 384

LARGEST = 2**26
"""Pixels of a resized image before its middle is cropped, 200 MB of them; only one of a few pixels' width has more."""


@dataclass(frozen=True)
class Preprocessing:
    """What a vision model expects, from its `preprocessor_config.json`.

    Attributes:
        resize: Length of the shorter edge after resizing, or (height, width), in pixels.
        crop: Height and width of the model's input in pixels.
        resample: Pillow's number of the resampling filter.
        mean: Per channel, of values in [0, 1].
        std: Per channel.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, model: str) -> "Preprocessing":
        """Read it for a model.

        The processor classes of transformers may ask for torchvision; the numbers in their file do not.

        Args:
            model: Hub id, folder or `package:NAME/PATH`.

        Raises:
            ConfigError: The model has no such file, or it lacks a number.
        """
        content, _ = load(ImageProcessingMixin.get_image_processor_dict, model, what="preprocessor_config.json")
        try:
            size = content["size"]
            resize = size if isinstance(size, int) else size.get("shortest_edge") or (size["height"], size["width"])
            if content.get("crop_pct") and isinstance(resize, int):  # ConvNeXt's
                # From 384 pixels on it squeezes the whole image into the square.
                resize = int(resize / content["crop_pct"]) if resize < _SQUEEZED else (resize, resize)
            crop = content.get("crop_size", size) if content.get("do_center_crop", True) else size
            if isinstance(crop, dict):
                crop = (crop["height"], crop["width"]) if "height" in crop else crop["shortest_edge"]
            return cls(
                resize=resize,
                crop=(crop, crop) if isinstance(crop, int) else crop,
                resample=content.get("resample", int(PIL.Image.Resampling.BICUBIC)),
                mean=tuple(content["image_mean"]) if content.get("do_normalize", True) else (0.0, 0.0, 0.0),
                std=tuple(content["image_std"]) if content.get("do_normalize", True) else (1.0, 1.0, 1.0),
            )
        except (KeyError, AttributeError) as error:
            raise ConfigError(
                "model", expected="size, image_mean and image_std in preprocessor_config.json", got=f"no {error}"
            ) from error

    def plain(self, image: PIL.Image.Image) -> Tensor:
        """Resize and crop the middle, as the model was pre-trained for.

        Args:
            image: Of any size.

        Returns:
            (3, height, width), normalized.

        Raises:
            ValueError: The image is so narrow that it would be resized to more than `LARGEST` pixels.
        """
        if isinstance(self.resize, int):
            short = min(image.size)
            width, height = (self.resize * edge // short for edge in image.size)  # as transformers rounds
        else:
            height, width = self.resize
        if width * height > LARGEST:
            raise ValueError(f"{image.width} x {image.height} pixels are too long and narrow")
        left, top = (width - self.crop[1]) // 2, (height - self.crop[0]) // 2
        resized = image.resize((width, height), self._filter)
        return self._tensor(resized.crop((left, top, left + self.crop[1], top + self.crop[0])))

    def augmented(self, image: PIL.Image.Image, generator: random.Random) -> Tensor:
        """A random crop, resized, flipped half of the time.

        Args:
            image: Of any size.
            generator: Where the randomness comes from.

        Returns:
            (3, height, width), normalized.
        """
        area = image.width * image.height * generator.uniform(*CROP_AREA)
        ratio = math.exp(generator.uniform(*map(math.log, CROP_RATIO)))
        width = min(image.width, max(1, round(math.sqrt(area * ratio))))
        height = min(image.height, max(1, round(math.sqrt(area / ratio))))
        left = generator.randint(0, image.width - width)
        top = generator.randint(0, image.height - height)
        box = (left, top, left + width, top + height)
        resized = image.resize((self.crop[1], self.crop[0]), self._filter, box=box)
        if generator.random() < 0.5:
            resized = resized.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        return self._tensor(resized)

    @property
    def _filter(self) -> PIL.Image.Resampling:
        return PIL.Image.Resampling(self.resample)

    def _tensor(self, image: PIL.Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0).permute(2, 0, 1)
        return (pixels - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)


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
