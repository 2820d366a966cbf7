"""AutoLoRA's search for the rank of each layer, before the training with the ranks found.

The weights learn on the training split, the selection variables of `randlora.methods.autolora` on the validation split,
in every step both.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from randlora.errors import ConfigError
from randlora.messages import note
from randlora.methods.autolora import count_selected, find_selections
from randlora.tasks import Task
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.sections import MethodConfig, TrainConfig
from randlora.training.methods import build, is_head
from randlora.training.run.arguments import training_arguments
from randlora.training.run.folder import RunFolder
from randlora.training.run.look_ahead import look_ahead_gradient
from randlora.training.run.progress import resumed
from randlora.training.run.trainer import RunTrainer, run_trainer


class SelectionTrainer(RunTrainer):
    """A run's Trainer that trains selection variables on `eval_dataset` beside the weights."""

    current_gradient_accumulation_steps: int

    def begin_search(self, options: Any) -> None:
        """Take what AutoLoRA's config says; to be called once, after `begin`.

        Args:
            options: The config, an `AutoLoraConfig`.
        """
        self.options = options
        self.selections = list(find_selections(self.model).values())
        known = {id(selection) for selection in self.selections}
        trained = (part for part in self.model.parameters() if part.requires_grad)
        self.weights = [part for part in trained if id(part) not in known]
        self.found: list[Tensor] = []
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
            validation = partial(self._gradients, model, [self._validation_batch()], None)
            if self.options.look_ahead:
                step = [_gradient(weight).clone() for weight in self.weights]
                training = partial(self._gradients, model, batches, num_items_in_batch)
                rate = self.optimizer.param_groups[0]["lr"]
                self.found = look_ahead_gradient(self.weights, step, rate, training, validation)
            else:
                _, self.found = validation()
        return loss

    def _gradients(self, model: nn.Module, batches: list[Any], items: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the loss on some batches, by the Trainer's own step; those that are there are left alone."""
        parts = [*self.weights, *self.selections]
        kept, passes = [part.grad for part in parts], self.current_gradient_accumulation_steps
        self.model.zero_grad()
        self.current_gradient_accumulation_steps = len(batches)
        # All passes of a step drop the same inputs: else the finite difference would be one of dropout.
        with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
            for batch in batches:
                super().training_step(model, batch, items)
        found = [_gradient(part) for part in parts]
        self.current_gradient_accumulation_steps = passes
        for part, gradient in zip(parts, kept, strict=True):
            part.grad = gradient
        return found[: len(self.weights)], found[len(self.weights) :]

    def _validation_batch(self) -> Any:
        """A batch of the validation split in an order of seed and step alone, which a resumed run finds again."""
        rows: Any = self.eval_dataset
        size = min(self.args.per_device_train_batch_size, len(rows))
        epoch, place = divmod(self.state.global_step, len(rows) // size)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.args.seed + epoch))
        chosen = order[place * size : (place + 1) * size].tolist()
        collate = self._get_collator_with_removed_columns(self.data_collator, description="validation")
        return collate([rows[index] for index in chosen])


class SelectionGradient(TrainerCallback):
    """Hands the selection variables their gradient after the weights' have been clipped, of which it is no part."""

    def __init__(self, trainer: SelectionTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The optimizer steps next."""
        del args, state, control
        for selection, gradient in zip(self.trainer.selections, self.trainer.found, strict=True):
            selection.grad = gradient


def search_ranks(config: TrainConfig, folder: RunFolder, task: Task) -> dict[str, Any]:
    """Find the rank of each layer, or go on with finding it, or return what was found before an interruption.

    Args:
        config: The run's config, resolved.
        folder: Its folder.
        task: Its task with its model loaded, which is changed.

    Returns:
        What the record says of it: the ranks by layer, how they were found, steps and seconds.

    Raises:
        ConfigError: Several processes train together.
        LayerError: A layer cannot be searched.
        TrainingError: The search has diverged.
    """
    found = folder.found_ranks()
    if found is None:
        found = _search(config, folder, task)
        folder.save_ranks(found)
        gc.collect()  # a Trainer and its model hold each other
    return found


def with_ranks(method: MethodConfig, ranks: dict[str, int]) -> MethodConfig:
    """The plain LoRA to train with the ranks found."""
    own = ("look_ahead", "threshold", "search_steps", "selection_learning_rate")
    options = {name: value for name, value in method.options.items() if name not in own}
    return replace(method, name="lora", options={**options, "rank_pattern": {f"^{n}": r for n, r in ranks.items()}})


def _search(config: TrainConfig, folder: RunFolder, task: Task) -> dict[str, Any]:
    options: Any = adapter_config(config.method)
    optimization = replace(
        config.optimization,
        max_steps=options.search_steps or config.optimization.max_steps,
        eval_steps=0,
        keep_best=False,
        early_stopping=0,
    )
    model = build(task, config.method)
    arguments = training_arguments(replace(config, optimization=optimization, report_to=[]), task, folder.search)
    if arguments.world_size > 1:
        got = f"autolora on {arguments.world_size} processes"
        raise ConfigError("method.name", expected="autolora on one process", got=got, hint="start it by itself")
    checkpoint: Path | None = folder.checkpoint(folder.search)
    trainer_class, _ = task.trainer_classes()
    data = {"train_dataset": task.dataset("train"), "eval_dataset": task.dataset("validation")}
    trainer = run_trainer(trainer_class, SelectionTrainer)(model=model, args=arguments, **data, **task.inputs())
    trainer.begin(resumed(checkpoint, 1), is_head=partial(is_head, task=task), optimization=optimization)
    trainer.begin_search(options)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.require_finite({})
    ranks = {name: count_selected(part, options.threshold) for name, part in find_selections(model).items()}
    note(f"autolora found ranks from {min(ranks.values())} to {max(ranks.values())}, {sum(ranks.values())} in all")
    return {
        "ranks": ranks,
        "look_ahead": options.look_ahead,
        "threshold": 1 / options.r if options.threshold is None else options.threshold,
        "steps": trainer.state.global_step,
        "seconds": trainer.progress.train_seconds,
    }


def _gradient(part: Tensor) -> Tensor:
    return torch.zeros_like(part) if part.grad is None else part.grad


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
