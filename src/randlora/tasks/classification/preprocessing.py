"""What a vision model expects of an image, and an image so: normalized tensors, with Pillow and torch alone."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from transformers.image_processing_base import ImageProcessingMixin

from randlora.errors import ConfigError
from randlora.tasks.sources import load

CROP_AREA = (0.5, 1.0)
"""Share of the image's area that a random crop keeps."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""

_SQUEEZED = 384

_SHORT_EDGE = ("Bit", "ChineseCLIP", "CLIP", "ConvNext", "Levit", "MobileNet", "MobileViT", "PoolFormer")
"""Beginnings of the processors that take one number as the shorter edge's length; others squeeze images to a square."""

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
            size, kind = content["size"], content.get("image_processor_type") or content.get("feature_extractor_type")
            if isinstance(size, int) and kind and not kind.startswith(_SHORT_EDGE):
                size = {"height": size, "width": size}
            resize = size if isinstance(size, int) else size.get("shortest_edge") or (size["height"], size["width"])
            if content.get("crop_pct") and isinstance(resize, int):  # ConvNeXt's
                # From 384 pixels on it squeezes the whole image into the square.
                resize = int(resize / content["crop_pct"]) if resize < _SQUEEZED else (resize, resize)
            if kind and kind.startswith("Levit") and isinstance(resize, int):
                resize = int(256 / 224 * resize)
            crop = content.get("crop_size", size) if content.get("do_center_crop", True) else size
            if isinstance(crop, dict):
                crop = (crop["height"], crop["width"]) if "height" in crop else crop["shortest_edge"]
            mean, std = _normalization(content)
            return cls(
                resize=resize,
                crop=(crop, crop) if isinstance(crop, int) else crop,
                resample=content.get("resample", int(PIL.Image.Resampling.BICUBIC)),
                mean=mean,
                std=std,
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


def _normalization(content: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of values in [0, 1], whatever range the model's file has them for."""
    if content.get("do_normalize", True):
        mean, std = tuple(content["image_mean"]), tuple(content["image_std"])
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    white, black = 255 * factor, -1.0 if content.get("rescale_offset") else 0.0
    mean = tuple((value - black) / white for value in mean)
    # EfficientNet's with a head divides twice.
    return mean, tuple((value**2 if content.get("include_top") else value) / white for value in std)
