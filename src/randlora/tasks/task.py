"""What the training path asks of a task family."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from randlora.tasks.examples import Examples


class Task(Protocol):
    """A task family, bound to one pre-trained model and one set of labels.

    The flow: examples -> `dataset` -> `collate` -> `classifier` -> logits -> `classification_loss`, `accuracy`.

    Attributes:
        backbone: The pre-trained model, of transformers, that a method adapts.
        task_type: PEFT's name of the task, or None.
        head: Names of the modules or parameters that are new and always trained, where they exist.
        frozen: Names of the backbone's modules that no method trains.
    """

    backbone: Any
    task_type: str | None
    head: tuple[str, ...]
    frozen: tuple[str, ...]

    def dataset(self, examples: Examples, *, training_seed: int | None) -> Dataset[dict[str, Any]]:
        """The examples as a map-style data set.

        Args:
            examples: A split.
            training_seed: Seed of the augmentation of a training split; None for a test split.

        Raises:
            DataError: An input is not of the task's kind.
        """
        ...

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Model inputs, with the classes under "labels" (batch,)."""
        ...

    def classifier(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:
        """The module that is trained: `collate`'s output without labels in, "logits" (batch, classes) out.

        Args:
            adapted: The backbone after a method has been applied to it.
            train_head: Whether the head is all that is trained.
        """
        ...


def classification_loss(
    outputs: Mapping[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Cross entropy.

    Args:
        outputs: With "logits" (batch, classes).
        labels: (batch,), whole numbers.
        num_items_in_batch: Examples in the whole accumulated batch; the mean is then taken over these, so that
            accumulation does not change the step.

    Returns:
        A scalar, in fp32.
    """
    logits = outputs["logits"].float()
    if num_items_in_batch is None:
        return nn.functional.cross_entropy(logits, labels)
    return nn.functional.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of right answers in percent, from the Trainer's `EvalPrediction`."""
    logits, labels = prediction.predictions, prediction.label_ids
    return {"accuracy": 100.0 * float(np.mean(np.argmax(logits, axis=-1) == labels))}


def labels_of(batch: list[dict[str, Any]]) -> Tensor:
    """The labels of a batch, (batch,)."""
    return torch.tensor([example["labels"] for example in batch], dtype=torch.long)
