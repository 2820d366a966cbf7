"""A run's model on a split of its data, through the task's own Trainer: its batches, its losses."""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Subset

from randlora.analysis.runs import FinishedRun
from randlora.tasks import Split, Task
from randlora.tasks.task import scores_on
from randlora.training.methods import is_head
from randlora.training.run.arguments import training_arguments
from randlora.training.run.callbacks import ProgressBar
from randlora.training.run.progress import Progress
from randlora.training.run.trainer import run_trainer


class Evaluator:
    """A model and the examples that it is looked at with, computed in float32 whatever training did.

    Args:
        run: The run whose config is used.
        task: Its task.
        model: The model.
        split: The split.
        examples: How many of it, drawn by a fixed seed; None takes all.
        scratch: A folder for the Trainer.

    Attributes:
        count: Number of the examples.

    Raises:
        DataError: The data cannot be read.
    """

    def __init__(
        self, run: FinishedRun, task: Task, model: nn.Module, split: Split, examples: int | None, scratch: Path
    ) -> None:
        self._split = split
        self.data = _drawn(task.dataset(split), examples)
        self.count = len(self.data)
        config = replace(run.config, report_to=[], optimization=replace(run.config.optimization, precision="fp32"))
        trainer_class, _ = task.trainer_classes()
        self.trainer: Any = run_trainer(trainer_class)(
            model=model, args=training_arguments(config, task, scratch), eval_dataset=self.data, **task.inputs()
        )
        self.trainer.begin(Progress(run.record.started), is_head=partial(is_head, task=task))
        self.trainer.remove_callback(ProgressBar)  # an analysis has a bar of its own

    def loss(self) -> float:
        """The model's mean loss on the examples."""
        return scores_on(self.trainer, self.data, self._split)["loss"]

    def batches(self, size: int) -> "DataLoader[Any]":
        """The examples as model inputs, mixed in an order that no model changes: files are often sorted by class."""
        order = list(range(self.count))
        random.Random(0).shuffle(order)  # noqa: S311 - a repeatable order
        return DataLoader(Subset(self.data, order), batch_size=size, collate_fn=self.trainer.data_collator)

    def forward(self, batch: dict[str, Any]) -> None:
        """Run the model on a batch, without gradients; what is wanted of it, hooks take."""
        self.trainer.prediction_step(self.trainer.model, batch, prediction_loss_only=True)


def _drawn(data: Any, examples: int | None) -> Any:
    if examples is None or examples >= len(data):
        return data
    # In the order of the data, in which a task of texts has those of one length together: batches need little padding.
    rows = sorted(random.Random(0).sample(range(len(data)), examples))  # noqa: S311 - a repeatable draw
    return data.select(rows) if hasattr(data, "select") else Subset(data, rows)
