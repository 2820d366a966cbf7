"""An image as a vision model expects it, by the model's own processor, and a random crop of it for training."""

import math
import random
from typing import Any

import PIL.Image
from torch import Tensor
from transformers import AutoImageProcessor

from randlora.errors import ConfigError
from randlora.tasks.sources import load

CROP_AREA = (0.5, 1.0)
"""Share of the image's area that a random crop keeps."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""

_SHAPES = ((64, 48), (48, 64))
"""Width and height of images that a model must take in one size."""

LARGEST = 2**26
"""Pixels of a resized image before its middle is cropped, 200 MB of them; only one of a few pixels' width has more."""


class Preprocessing:
    """What a vision model expects of images.

    Args:
        processor: An image processor of transformers.

    Attributes:
        crop: Height and width of the model's input in pixels.

    Raises:
        ConfigError: It does not make one picture of one size of every image.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._edge: int | None = (getattr(processor, "size", None) or {}).get("shortest_edge")
        resample = getattr(processor, "resample", None)
        self._resample = PIL.Image.Resampling.BICUBIC if resample is None else PIL.Image.Resampling(resample)
        name = f"the {type(processor).__name__} of preprocessor_config.json"
        expected = f"{name} to make one picture of one size of every image"
        try:
            found = {tuple(self._tensor(PIL.Image.new("RGB", shape)).shape) for shape in _SHAPES}
        except Exception as error:
            raise ConfigError("model", expected=expected, got=f"{type(error).__name__}: {error}") from error
        shape = found.pop()
        if found or len(shape) != 3:
            got = " and ".join(" x ".join(map(str, each)) for each in sorted({shape, *found}))
            raise ConfigError("model", expected=expected, got=got)
        self.crop: tuple[int, int] = shape[1:]

    @classmethod
    def of(cls, model: str) -> "Preprocessing":
        """That of a model.

        The processors that need torchvision are not asked for: they resize otherwise by a little.

        Args:
            model: Hub id, folder or `package:NAME/PATH`.

        Raises:
            ConfigError: The model has no preprocessor_config.json, or see `Preprocessing`.
        """
        return cls(load(AutoImageProcessor.from_pretrained, model, what="preprocessor_config.json", backend="pil"))

    def plain(self, image: PIL.Image.Image) -> Tensor:
        """An image as the model was pre-trained for, in most cases resized and cropped to its middle.

        Args:
            image: Of any size.

        Returns:
            (3, height, width), normalized.

        Raises:
            ValueError: The image is so narrow that it would be resized to more than `LARGEST` pixels.
        """
        if self._edge is not None and self._edge**2 * max(image.size) > LARGEST * min(image.size):
            raise ValueError(f"{image.width} x {image.height} pixels are too long and narrow")
        return self._tensor(image)

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
        resized = image.resize((self.crop[1], self.crop[0]), self._resample, box=box)
        if generator.random() < 0.5:
            resized = resized.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        return self._tensor(resized, do_resize=False, do_center_crop=False, do_pad=False)

    def _tensor(self, image: PIL.Image.Image, **options: bool) -> Tensor:
        made: Tensor = self._processor(image, return_tensors="pt", **options)["pixel_values"]
        return made.squeeze(0)
