"""What the training path asks of a task: it owns data, loss, metrics, Trainer and goal."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from randlora.errors import ConfigError, RandLoraError
from randlora.methods.prompts.config import PromptConfig
from randlora.tasks.config import DataConfig
from randlora.tasks.rows import is_local
from randlora.tasks.sources import BaseModel

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch")
"""Figures of the Trainer that say how fast an evaluation was."""


@dataclass(frozen=True)
class Defaults:
    """What a config that says nothing gets.

    Attributes:
        learning_rate: Of adapters and heads.
        full_learning_rate: Of full fine-tuning.
        batch_size: Training examples per device and forward pass.
        eval_batch_size: Other examples per device and forward pass.
        as_lora: Rank of the LoRA whose number of trained numbers RandLoRA has; None leaves r to the method.
    """

    learning_rate: float = 3e-3
    full_learning_rate: float = 1e-4
    batch_size: int = 32
    eval_batch_size: int = 64
    as_lora: int | None = None


@dataclass(frozen=True)
class Goal:
    """The metric that a task is judged by.

    Attributes:
        metric: Its name among the scores.
        higher: Whether more of it is better.
        unit: What stands after the number.
    """

    metric: str
    higher: bool = True
    unit: str = ""

    def best(self, values: Mapping[Any, float]) -> Any:
        """The key of the best value."""
        return (max if self.higher else min)(values, key=lambda key: values[key])


class Task(ABC):
    """A task, bound to its data and, after `load_model`, to a pre-trained model.

    The flow: `Task(data)` -> `load_model` -> the backbone, adapted by a method -> `wrap` -> the model that the Trainer
    of `trainer_classes` trains on `dataset("train")` -> `score`.

    Args:
        data: The data section of the config.
        seed: Seed of what is drawn from the data, and of augmentation.
        facts: What a finished run's record knows of its training data, see `facts`; the training data are then not
            read. None reads them.

    Attributes:
        backbone: The pre-trained model, of transformers, that a method adapts.
        head: Names of the modules or parameters that are new and always trained, where they exist.
        frozen: Names of the backbone's modules that no method trains.
    """

    data_class: ClassVar[type[DataConfig]]
    goal: Goal
    """What most tasks are judged by; an instance's follows its data section, see `goal_for`."""
    defaults: ClassVar[Defaults] = Defaults()
    task_type: ClassVar[str | None] = None
    """PEFT's name of the task."""
    trained_head: ClassVar[bool] = True
    """Whether methods other than "head" train a head too."""
    takes_dtype: ClassVar[bool] = False
    """Whether the model is loaded in a dtype that the config names, or quantized."""

    backbone: Any
    head: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    foreign: bool = False
    """Whether the data have other classes than those that the model was trained on."""

    def __init__(self, data: Any, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        self.data, self.seed = data, seed
        self.known = facts
        self.goal = self.goal_for(data)

    @classmethod
    def goal_for(cls, data: Any) -> Goal:  # noqa: ARG003 - most tasks have one goal
        """The metric that a task with this data section is judged by."""
        return cls.goal

    @classmethod
    @abstractmethod
    def check(cls, data: Any) -> None:
        """Check what can be known of a data section before anything is read.

        Raises:
            ConfigError: Two values are in conflict.
            DataError: A value does not fit the data.
        """

    @classmethod
    def check_method(cls, data: Any, config: Any) -> None:  # noqa: ARG003 - for subclasses
        """Check that the task can be trained with an adapter.

        Args:
            data: The data section.
            config: The adapter's, of PEFT.

        Raises:
            ConfigError: It trains inputs that the task's models do not have.
        """
        if isinstance(config, PromptConfig):
            hint = "prompts are for CLIP's two towers, task image-text"
            got = config.type_name.removeprefix("RANDLORA_").lower()
            raise ConfigError("method.name", expected="a method that adapts layers", got=got, hint=hint)

    def settle(self, config: Any) -> None:
        """Fill in what the config of prompts must know of the data and the loaded model.

        Args:
            config: One that passed `check_method`.
        """
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def without_data(cls, data: Any) -> "Task":
        """The task with made-up facts, for describing a model without reading its data."""

    def has(self, split: Split) -> bool:
        """Whether the config names such data."""
        if split == "test":
            return self.data.test is not None or not is_local(self.data.train)
        return split == "train" or self.data.validation is not None

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What evaluation must know of the training data, as JSON: the classes, for instance."""

    @abstractmethod
    def look(self, split: Split) -> None:
        """Read a split as far as it can be known without a model whether a run would take it.

        Raises:
            DataError: It cannot be read or does not fit.
        """

    def faults(self) -> list[str]:
        """What is wrong with the splits, a line each, as far as `look` tells."""
        found = [self._fault(split) for split in SPLITS if self.has(split)]
        return list(dict.fromkeys(filter(None, found)))

    def _fault(self, split: Split) -> str:
        try:
            self.look(split)
        except RandLoraError as error:
            return str(error)
        return ""

    @abstractmethod
    def fingerprint(self, split: Split) -> str:
        """A digest of a split as it is used.

        Raises:
            DataError: It cannot be read or does not fit.
        """

    def trainer_classes(self) -> tuple[type[Trainer], type[TrainingArguments]]:
        """The class of Trainer, and that of its arguments."""
        return Trainer, TrainingArguments

    @abstractmethod
    def load_model(self, base: BaseModel) -> None:
        """Load the pre-trained model into `backbone`.

        Args:
            base: Where it lies, and how it is loaded.

        Raises:
            ConfigError: It cannot be loaded or is of another kind.
            DataError: The data section does not fit it.
        """

    @abstractmethod
    def wrap(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:
        """The module that is trained.

        Args:
            adapted: The backbone after a method has been applied to it.
            train_head: Whether the head is all that is trained.
        """

    @abstractmethod
    def dataset(self, split: Split) -> Dataset[Any]:
        """A split as the Trainer takes it, in the task's order; only the training split is augmented.

        Raises:
            DataError: An input is not of the task's kind.
        """

    @abstractmethod
    def largest(self, count: int) -> tuple[Any, str]:
        """Training examples as large as the run's will be, made up, for a prediction of its memory.

        Args:
            count: How many.

        Returns:
            A split as `dataset` gives it, and in words how large its examples are and how that is known.
        """

    def arguments(self) -> dict[str, Any]:
        """Fields of the Trainer's arguments that the data section decides."""
        return {}

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """What the Trainer is made with beside model, arguments and data: collator, loss, metrics."""

    def classes(self) -> list[str] | None:
        """What the model is told of the classes; None where it is told nothing, or knows but the training's."""
        return None

    def about_training(self) -> dict[str, float]:
        """What is recorded of the training data beside scores, by name; most tasks have nothing to say."""
        return {}

    def unrelated(self, trainer: Any) -> dict[str, float]:  # noqa: ARG002 - most tasks measure nothing
        """Scores of the trainer's model on data that the task does not hold: what they lose has been forgotten."""
        return {}

    def save_beside(self, folder: Path) -> None:  # noqa: B027 - most tasks have nothing to add
        """Write what a user of the adapter needs beside it.

        Args:
            folder: The adapter's.
        """

    def score(self, trainer: Trainer, split: Split) -> dict[str, float]:
        """Measure the trainer's model on a split.

        Returns:
            "loss" and the task's metrics by name.
        """
        return scores_on(trainer, self.dataset(split), split)


def scores_on(trainer: Trainer, dataset: Any, name: str) -> dict[str, float]:
    """Measure the trainer's model on data.

    Args:
        trainer: The trainer.
        dataset: The data.
        name: What they are called in logs.

    Returns:
        "loss" and the task's metrics by name.
    """
    found = trainer.evaluate(dataset, metric_key_prefix=name)
    scores = {key.removeprefix(f"{name}_"): value for key, value in found.items() if key.startswith(f"{name}_")}
    return {key: value for key, value in scores.items() if key not in NOT_METRICS}
