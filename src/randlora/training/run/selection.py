"""AutoLoRA's search: the weights learn on the training split, the selection variables on the validation split.

In every step both; the selection variables are those of `randlora.methods.autolora`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from randlora.methods.autolora import count_selected, find_selections
from randlora.training.run.look_ahead import look_ahead_gradient
from randlora.training.run.search_trainer import SearchTrainer


class SelectionTrainer(SearchTrainer):
    """Trains selection variables beside the weights."""

    def begin_search(self) -> None:
        """See `SearchTrainer`."""
        super().begin_search()
        self.selections = list(find_selections(self.model).values())
        known = {id(selection) for selection in self.selections}
        self.weights = [part for part in self.trained if id(part) not in known]
        self.selection_gradients: list[Tensor] = []
        self._batches: list[Any] = []
        self.add_callback(SelectionGradient(self))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The run's optimizer, with the selection variables in a group of their own learning rate."""
        optimizer = super().create_optimizer(model)
        known = {id(selection) for selection in self.selections}
        for group in optimizer.param_groups:
            group["params"] = [part for part in group["params"] if id(part) not in known]
        own = {"lr": self.options.selection_learning_rate, "weight_decay": 0.0}
        optimizer.add_param_group({**optimizer.param_groups[0], **own, "params": self.selections})
        return optimizer

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """The gradient of the weights and, with the last forward pass of a step, that of the selection variables."""
        self._batches.append(inputs)
        with _frozen(self.selections):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            batches, self._batches = self._batches, []
            validation = partial(self._both, model, [self.validation_batch()], None)
            if self.options.look_ahead:
                step = [torch.zeros_like(part) if part.grad is None else part.grad.clone() for part in self.weights]
                training = partial(self._both, model, batches, num_items_in_batch)
                rate = self.optimizer.param_groups[0]["lr"]
                self.selection_gradients = look_ahead_gradient(self.weights, step, rate, training, validation)
            else:
                _, self.selection_gradients = validation()
        return loss

    def found(self) -> dict[str, Any]:
        """See `SearchTrainer`; the ranks are numbers of terms."""
        given = self.options.threshold
        return {
            "ranks": {name: count_selected(part, given) for name, part in find_selections(self.model).items()},
            "look_ahead": self.options.look_ahead,
            "threshold": 1 / self.options.r if given is None else given,
        }

    def _both(self, model: nn.Module, batches: list[Any], items: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the weights and of the selection variables."""
        found = dict(zip(map(id, self.trained), self.gradients(model, batches, items), strict=True))
        return [found[id(part)] for part in self.weights], [found[id(part)] for part in self.selections]


class SelectionGradient(TrainerCallback):
    """Hands the selection variables their gradient after the weights' have been clipped, of which it is no part."""

    def __init__(self, trainer: SelectionTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The optimizer steps next."""
        del args, state, control
        for selection, gradient in zip(self.trainer.selections, self.trainer.selection_gradients, strict=True):
            selection.grad = gradient


@contextmanager
def _frozen(parts: Sequence[Tensor]) -> Iterator[None]:
    """Parameters that get no gradient for a while."""
    for part in parts:
        part.requires_grad_(False)
    try:
        yield
    finally:
        for part in parts:
            part.requires_grad_(True)
