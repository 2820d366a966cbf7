"""What the classification tasks share: labelled examples, cross entropy, accuracy."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from randlora.errors import CheckpointError, ConfigError, DataError
from randlora.tasks.classification.config import ClassificationData
from randlora.tasks.classification.labelled import Columns, Examples, load_labelled, load_training
from randlora.tasks.classification.metrics import score_function
from randlora.tasks.fingerprint import examples_fingerprint
from randlora.tasks.hub import named_split
from randlora.tasks.rows import check_source, is_local
from randlora.tasks.suites.registry import made_up_classes
from randlora.tasks.task import Goal, Split, Task


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
        A scalar, in fp32 or, of such logits, fp64.
    """
    logits = full_precision(outputs["logits"])
    if num_items_in_batch is None:
        return nn.functional.cross_entropy(logits, labels)
    return nn.functional.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch


def full_precision(tensor: Tensor) -> Tensor:
    """A tensor in float32, or as it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def labels_of(batch: list[dict[str, Any]]) -> Tensor:
    """The labels of a batch, (batch,): whole numbers, or in a regression floats."""
    return torch.tensor([example["labels"] for example in batch])


def _known_names(facts: Mapping[str, Any]) -> list[str]:
    """The names of the classes in the facts of a finished run."""
    names = facts.get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError("the run's record", expected="the names of its classes", got=f"label_names {names!r}")
    return list(names)


class Classification(Task):
    """A classification task; a subclass says how inputs are read and what model reads them."""

    data_class: ClassVar[type[ClassificationData]]
    goal = Goal("accuracy", unit="%")
    input_column: ClassVar[str]
    """Field of the data section that names the column of the inputs."""

    data: ClassificationData

    def __init__(self, data: ClassificationData, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, seed=seed, facts=facts)
        self._splits: dict[Split, Examples] = {}
        self._label_names: list[str] | None = None if facts is None else _known_names(facts)

    @classmethod
    def check(cls, data: Any) -> None:
        """See `Task.check`."""
        if data.shots is not None and data.fraction is not None:
            raise ConfigError(
                "data.shots", expected="either shots or a fraction", got="both", hint="remove one of them"
            )
        check_source(data.train, "data.train")
        if isinstance(data.validation, str):
            check_source(data.validation, "data.validation")
        if data.test is not None:
            check_source(data.test, "data.test")
        elif is_local(data.train):
            raise DataError("data.test", expected="a file or folder with test data", got="none")

    @classmethod
    def without_data(cls, data: Any) -> "Classification":
        """See `Task.without_data`: as many classes as the suite has, or two."""
        return cls(data, seed=0, facts={"label_names": made_up_classes(data.suite)})

    @property
    def columns(self) -> Columns:
        """What is read of the data's tables."""
        return Columns(getattr(self.data, self.input_column))

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        if self._label_names is None:
            self.examples("train")
        return self._label_names or []

    def facts(self) -> dict[str, Any]:
        """The names of the classes."""
        return {"label_names": self.label_names}

    def examples(self, split: Split) -> Examples:
        """A split's rows with the numbers of their labels."""
        if split in self._splits:
            return self._splits[split]
        data, columns = self.data, self.columns
        test = data.test or named_split(data.train, split)[0]
        source = {"train": None, "validation": data.validation, "test": test}[split]
        if isinstance(source, str):
            self._splits[split] = load_labelled(source, split, data, columns, lambda: self.label_names)
        else:
            train, held_out, names = load_training(data, columns, seed=self.seed)
            self._splits["train"], self._label_names = train, self._label_names or names
            if held_out is not None:
                self._splits["validation"] = held_out
        return self._splits[split]

    def look(self, split: Split) -> None:
        """See `Task.look`: columns and labels; a subclass looks at the inputs."""
        self.examples(split)

    def fingerprint(self, split: Split) -> str:
        """See `Task.fingerprint`: of inputs and labels in their order."""
        return examples_fingerprint(self.examples(split))

    def arguments(self) -> dict[str, Any]:
        """See `Task.arguments`: the batches are as `collate` makes them."""
        return {"remove_unused_columns": False, "label_names": ["labels"]}

    def inputs(self) -> dict[str, Any]:
        """Cross entropy and accuracy."""
        return {
            "data_collator": self.collate,
            "compute_loss_func": classification_loss,
            "compute_metrics": score_function(["accuracy"]),
        }

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Model inputs, with the classes under "labels" (batch,)."""
        raise NotImplementedError

    def dataset(self, split: Split) -> Dataset[dict[str, Any]]:
        """See `Task.dataset`."""
        raise NotImplementedError
