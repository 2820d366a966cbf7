"""Image classification: a vision backbone with a linear head."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModelForImageClassification

from randlora.errors import ConfigError
from randlora.messages import note
from randlora.tasks.classification.classifiers import fit_loaded_head, head_of, load_classifier
from randlora.tasks.classification.config import ImageData
from randlora.tasks.classification.image_task import ImageTask
from randlora.tasks.classification.preprocessing import Preprocessing
from randlora.tasks.sources import BaseModel
from randlora.tasks.task import Split


class VisionClassifier(nn.Module):
    """A vision model with its head, images in and logits out.

    The running statistics of batch normalization stay the pre-trained ones, in training too: no adapter would hold
    others.

    Args:
        model: A model of transformers for image classification, adapted or not.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> "VisionClassifier":
        """Switch all but batch normalization to training or evaluation."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        return self

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Classify images.

        Args:
            pixel_values: (batch, 3, height, width), normalized.

        Returns:
            "logits" (batch, classes).
        """
        return {"logits": self.model(pixel_values=pixel_values).logits}


class ImageClassification(ImageTask):
    """A vision model of transformers (DinoV2, ViT, ...) with a linear head.

    The head is whatever `AutoModelForImageClassification` puts behind the pre-trained part. A model that comes with a
    head for the same classes keeps it, with its rows in the data's order; any other starts at random, so the caller
    seeds before the model is loaded.
    """

    data_class = ImageData
    data: ImageData
    backbone: Any

    def load_model(self, base: BaseModel) -> None:
        """See `Task.load_model`; the model must take images as its preprocessing makes them."""
        self.preprocessing = Preprocessing.of(base.name)
        self.backbone, report, known = load_classifier(
            AutoModelForImageClassification, base.name, self.label_names, trust_remote_code=base.trust_remote_code
        )
        self.head = head_of(self.backbone, report)
        self._head_story = fit_loaded_head(self.backbone, self.head, report, known, self.label_names)
        self._check_size(base.name)

    def _check_size(self, model: str) -> None:
        """Run one grey image through the model."""
        size = (1, 3, *self.preprocessing.crop)
        try:
            with torch.no_grad():
                self.backbone.eval()(pixel_values=torch.zeros(size, dtype=self.backbone.dtype))
        except (ValueError, RuntimeError) as error:  # of whatever layer does not fit
            raise ConfigError(
                "model",
                expected="a model that takes images of the size in its preprocessor_config.json",
                got=f"'{model}' and {size[2]} x {size[3]} pixels: {str(error).splitlines()[0]}",
            ) from error

    def dataset(self, split: Split) -> Any:
        """See `ImageTask.dataset`."""
        if split == "train" and self._head_story:
            note(self._head_story)
        return super().dataset(split)

    def wrap(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:  # noqa: ARG002
        """The adapted model, which ends in the head."""
        return VisionClassifier(adapted)
