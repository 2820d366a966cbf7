"""A config in the Trainer's words."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from randlora.messages import note
from randlora.tasks import Task
from randlora.training.config.sections import OptimizationConfig, TrainConfig

LOGGING_STEPS = 10
"""Steps between updates of the loss on the progress bar; reading it more often would stall a GPU."""


def training_arguments(config: TrainConfig, task: Task, checkpoints: Path) -> TrainingArguments:
    """The Trainer's arguments for a run.

    Args:
        config: The run's config.
        task: Its task.
        checkpoints: Folder for the Trainer's checkpoints.
    """
    optimization = config.optimization
    on_cpu = optimization.device == "cpu" or not torch.cuda.is_available()
    options: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "seed": config.seed,
        "learning_rate": optimization.learning_rate,
        "num_train_epochs": optimization.epochs,
        "max_steps": optimization.max_steps,
        "per_device_train_batch_size": optimization.batch_size,
        "per_device_eval_batch_size": optimization.eval_batch_size,
        "gradient_accumulation_steps": optimization.gradient_accumulation_steps,
        "optim": optimization.optimizer,
        "weight_decay": optimization.weight_decay,
        "warmup_steps": optimization.warmup_ratio,  # below 1 it is a share of the steps
        "lr_scheduler_type": optimization.scheduler,
        "max_grad_norm": optimization.max_grad_norm,
        "bf16": optimization.precision == "bf16",
        "fp16": optimization.precision == "fp16",
        "use_cpu": on_cpu,
        "dataloader_num_workers": optimization.dataloader_workers,
        "dataloader_pin_memory": not on_cpu,
        # The one before last stays until the last is complete; so does the best.
        "save_total_limit": 2,
        "logging_steps": LOGGING_STEPS,
        "logging_nan_inf_filter": False,
        "report_to": config.report_to or "none",
    }
    _, arguments_class = task.trainer_classes()
    arguments = arguments_class(**options, **_saving_and_scoring(optimization, task), **task.arguments())
    if arguments.bf16 and not on_cpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        _tell("this GPU has bf16 by emulation alone; optimization.precision fp16 is faster on it")
    if arguments.n_gpu > 1:
        _tell(f"one of {arguments.n_gpu} GPUs is used; for all: accelerate launch --multi_gpu -m randlora train …")
        # The Trainer would copy the model to all of them at every step (nn.DataParallel), each with a batch of its own.
        arguments._n_gpu = 1
    return arguments


@cache
def _tell(text: str) -> None:
    """A note of what holds for every run of this process, once."""
    note(text)


def _saving_and_scoring(optimization: OptimizationConfig, task: Task) -> dict[str, Any]:
    """When checkpoints are written, and when the validation split is scored."""
    found: dict[str, Any] = {
        "save_strategy": "steps" if optimization.save_steps else "epoch",
        "save_steps": optimization.save_steps or LOGGING_STEPS,
    }
    if optimization.eval_steps:
        found |= {"eval_strategy": "steps", "eval_steps": optimization.eval_steps}
    elif optimization.keep_best or optimization.early_stopping:
        found |= {"eval_strategy": found["save_strategy"], "eval_steps": found["save_steps"]}
    if optimization.keep_best or optimization.early_stopping:
        found |= {"metric_for_best_model": f"eval_{task.goal.metric}", "greater_is_better": task.goal.higher}
    return found | {"load_best_model_at_end": optimization.keep_best}
