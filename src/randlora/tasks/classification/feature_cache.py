"""Features of images that a frozen tower sees again in every epoch, computed once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from randlora.tasks.classification.images import ImageRows

MOST_BYTES = 2**28
"""Of the features of a split, a quarter of a GiB: 131,072 images with 512 numbers each. Larger splits are not kept."""

CHUNK = 32
"""Images that are encoded together, always the same ones: bits depend on the batch, and resumed runs on the bits."""


class CachedFeatures(Dataset[dict[str, Any]]):
    """Labelled features in the place of images, in float32 on the CPU.

    Args:
        images: The images, without augmentation.
        encode: Images (batch, 3, height, width) -> features (batch, width), on any devices.
        width: Numbers of a feature.
    """

    def __init__(self, images: ImageRows, encode: Callable[[Tensor], Tensor], width: int) -> None:
        self.images, self.encode = images, encode
        self._features = torch.empty(len(images), width)
        self._known = torch.zeros(len(images), dtype=torch.bool)

    @staticmethod
    def fits(images: ImageRows, width: int) -> bool:
        """Whether the features of a split may be kept."""
        return 4 * width * len(images) <= MOST_BYTES

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """A batch, as PyTorch's loader asks for it."""
        if get_worker_info() is not None:  # a process that loads data has no model to ask
            return [self.images[index] for index in indices]
        for index in indices:
            if not self._known[index]:
                self._encode(range(index - index % CHUNK, min(index - index % CHUNK + CHUNK, len(self))))
        labels = self.images.examples.labels
        return [{"image_features": self._features[index], "labels": labels[index]} for index in indices]

    def _encode(self, rows: range) -> None:
        pixels = torch.stack([self.images[row]["pixel_values"] for row in rows])
        with torch.no_grad():
            self._features[rows.start : rows.stop] = self.encode(pixels).float().cpu()
        self._known[rows.start : rows.stop] = True
