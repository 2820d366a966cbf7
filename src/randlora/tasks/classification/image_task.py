"""What the classification of images shares, whatever the model."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from randlora.tasks.classification.config import ImageData
from randlora.tasks.classification.images import ImageRows, require_image_files
from randlora.tasks.classification.preprocessing import Preprocessing
from randlora.tasks.classification.task import Classification, labels_of
from randlora.tasks.task import Split


class ImageTask(Classification):
    """Labelled images, preprocessed as the model was pre-trained for."""

    input_column = "image_column"
    data: ImageData
    preprocessing: Preprocessing

    def look(self, split: Split) -> None:
        """See `Task.look`; the images themselves are not opened."""
        require_image_files(self.examples(split))

    def dataset(self, split: Split) -> Dataset[dict[str, Any]]:
        """The images; only training images are augmented, and only with `data.augment`."""
        augment = split == "train" and self.data.augment
        return ImageRows(self.examples(split), self.preprocessing, self.seed if augment else None)

    def largest(self, count: int) -> tuple[Any, str]:
        """See `Task.largest`: all images are of one size."""
        height, width = self.preprocessing.crop
        words = f"images of {height} x {width} pixels"
        if self.known is not None:
            words += f", {len(self.label_names):,} classes"
        return [{"pixel_values": torch.zeros(3, height, width), "labels": 0}] * count, words

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Images (batch, 3, height, width), or their features (batch, width), and labels (batch,)."""
        (name,) = batch[0].keys() - {"labels"}
        return {name: torch.stack([example[name] for example in batch]), "labels": labels_of(batch)}
