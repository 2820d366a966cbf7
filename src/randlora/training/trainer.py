"""transformers' Trainer, with checkpoints of the trained numbers only and a learning rate for the head."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from randlora.errors import TrainingError
from randlora.tasks.task import accuracy, classification_loss
from randlora.training.adalora import RankBudget, find_adalora, orthogonality
from randlora.training.callbacks import EpochOfData, ProgressBar
from randlora.training.config import TrainConfig
from randlora.training.progress import Progress, Stopwatch
from randlora.training.weights import load_trained, save_trained

LOGGING_STEPS = 10
"""Steps between updates of the loss on the progress bar; reading it more often would stall a GPU."""


class LengthGroups(LengthGroupedSampler):
    """Batches of similar lengths in an order of seed and epoch alone, which a resumed run finds again.

    Args:
        batch_size: Examples per optimizer step.
        lengths: Of every example.
        seed: Seed of the order.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Fix the order of an epoch; accelerate calls this before each."""
        self.generator.manual_seed(self.seed + epoch)


class RunTrainer(Trainer):
    """The Trainer of one run.

    Args:
        arguments: The Trainer's, from `training_arguments`.
        progress: Measurements so far; the training adds to them.
        is_head: Whether a parameter, by name, belongs to the head.
        head_learning_rate: Learning rate of these; None means the same as for the rest.
        options: Passed on to `transformers.Trainer`: model, args, train_dataset, data_collator, ...
    """

    def __init__(
        self,
        arguments: TrainingArguments,
        *,
        progress: Progress,
        is_head: Callable[[str], bool],
        head_learning_rate: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            args=arguments,
            compute_loss_func=classification_loss,
            compute_metrics=accuracy,
            **options,
        )
        self.progress, self.is_head = progress, is_head
        self.head_learning_rate = head_learning_rate
        self.stopwatch = Stopwatch(progress)
        for shown_otherwise in (ProgressCallback, PrinterCallback):
            self.remove_callback(shown_otherwise)
        for callback in (self.stopwatch, ProgressBar(), EpochOfData(options.get("train_dataset"))):
            self.add_callback(callback)
        self.adalora = find_adalora(self.model)
        if self.adalora is not None:
            self.add_callback(RankBudget(self.adalora))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loss; while AdaLoRA is trained, with its penalty."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.adalora is None or not model.training:
            return loss
        # The loss is already the share of this forward pass in the accumulated batch.
        return loss + orthogonality(self.adalora) / self.current_gradient_accumulation_steps

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            return LengthGroups(sampler.batch_size, sampler.lengths, self.args.seed)
        return sampler

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with the head's parameters in groups of their own learning rate."""
        optimizer = super().create_optimizer(model)
        if self.head_learning_rate is None:
            return optimizer
        named = (self.model if model is None else model).named_parameters()
        head = {id(parameter) for name, parameter in named if self.is_head(name)}
        for group in list(optimizer.param_groups):
            apart = [parameter for parameter in group["params"] if id(parameter) in head]
            if apart:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in head]
                optimizer.add_param_group({**group, "params": apart, "lr": self.head_learning_rate})
        return optimizer

    def count_trained(self) -> tuple[int, int]:
        """Trained numbers of the method and of the head; to be asked before training, which may shard them."""
        trained = [(name, part.numel()) for name, part in self.model.named_parameters() if part.requires_grad]
        head = sum(count for name, count in trained if self.is_head(name))
        return sum(count for _, count in trained) - head, head

    def mean_train_loss(self) -> float:
        """Mean loss over all steps of the run, those before an interruption included."""
        total, last = 0.0, 0
        for entry in self.state.log_history:
            if "loss" in entry:
                total += entry["loss"] * (entry["step"] - last)
                last = entry["step"]
        return total / last if last else math.nan

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """What a checkpoint holds of the model: the trained parameters, whatever the method."""
        if self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.model, Path(resume_from_checkpoint))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's, where the loss is a number to go on with."""
        if "loss" in logs:
            self.require_finite({"loss": logs["loss"]})
        super().log(logs, *args, **kwargs)

    def require_finite(self, losses: dict[str, float]) -> None:
        """Stop a run that has diverged: a loss, or a trained number, that is not finite.

        Args:
            losses: What they are called -> their values.

        Raises:
            TrainingError: One is not.
        """
        found = {name: f"{value}" for name, value in losses.items() if not math.isfinite(value)}
        trained = ((name, part) for name, part in self.model.named_parameters() if part.requires_grad)
        found |= {name: "NaN or infinity" for name, part in trained if not torch.isfinite(part).all()}
        for name, value in found.items():
            raise TrainingError(
                f"{name} after step {self.state.global_step}",
                expected="a finite number",
                got=value,
                hint=f"the training diverged; lower optimization.learning_rate, now {self.args.learning_rate:g}",
            )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.require_finite({})
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            self.stopwatch.lap()
            self.progress.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")


def training_arguments(config: TrainConfig, checkpoints: Path) -> TrainingArguments:
    """The config in the Trainer's words.

    Args:
        config: The run's config.
        checkpoints: Folder for the Trainer's checkpoints.
    """
    optimization = config.optimization
    return TrainingArguments(
        output_dir=str(checkpoints),
        seed=config.seed,
        learning_rate=optimization.learning_rate,
        num_train_epochs=optimization.epochs,
        max_steps=optimization.max_steps,
        per_device_train_batch_size=optimization.batch_size,
        per_device_eval_batch_size=optimization.eval_batch_size,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        weight_decay=optimization.weight_decay,
        warmup_steps=optimization.warmup_ratio,  # below 1 it is a share of the steps
        lr_scheduler_type=optimization.scheduler,
        max_grad_norm=optimization.max_grad_norm,
        bf16=optimization.precision == "bf16",
        fp16=optimization.precision == "fp16",
        use_cpu=optimization.device == "cpu" or not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length" if optimization.group_by_length else "random",
        dataloader_num_workers=optimization.dataloader_workers,
        dataloader_pin_memory=torch.cuda.is_available() and optimization.device != "cpu",
        save_strategy="steps" if optimization.save_steps else "epoch",
        save_steps=optimization.save_steps or LOGGING_STEPS,
        # The one before last stays until the last is complete.
        save_total_limit=2,
        logging_steps=LOGGING_STEPS,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
    )
