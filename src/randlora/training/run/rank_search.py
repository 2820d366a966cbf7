"""The search for the r of each layer, before the training with the ranks found."""

import gc
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from randlora.errors import ConfigError
from randlora.messages import note
from randlora.tasks import Task
from randlora.training.config.adapter_configs import adapter_config, takes
from randlora.training.config.method_table import AFTER_SEARCH
from randlora.training.config.sections import MethodConfig, TrainConfig
from randlora.training.methods import build, is_head
from randlora.training.run.arguments import training_arguments
from randlora.training.run.folder import RunFolder
from randlora.training.run.layer_gains import GainTrainer
from randlora.training.run.progress import resumed
from randlora.training.run.search_trainer import SearchTrainer
from randlora.training.run.selection import SelectionTrainer
from randlora.training.run.trainer import run_trainer

_SEARCHES: dict[str, type[SearchTrainer]] = {"autolora": SelectionTrainer, "auto_randlora": GainTrainer}


def search_ranks(config: TrainConfig, folder: RunFolder, task: Task) -> dict[str, Any]:
    """Find the rank of each layer, or go on with finding it, or return what was found before an interruption.

    Args:
        config: The run's config, resolved.
        folder: Its folder.
        task: Its task with its model loaded, which is changed.

    Returns:
        What the record says of it: the ranks by layer, how they were found, steps and seconds.

    Raises:
        ConfigError: Several processes train together, or there is nothing to find.
        LayerError: AutoLoRA cannot search a layer.
        TrainingError: The search has diverged.
    """
    found = folder.found_ranks()
    if found is None:
        found = _search(config, folder, task)
        folder.save_ranks(found)
        gc.collect()  # a Trainer and its model hold each other
    return found


def with_ranks(method: MethodConfig, ranks: dict[str, int]) -> MethodConfig:
    """The plain method to train with the ranks found."""
    name = AFTER_SEARCH[method.name]
    options: dict[str, Any] = {key: value for key, value in method.options.items() if takes(name, key)}
    options["rank_pattern"] = {f"^{re.escape(layer)}": r for layer, r in ranks.items()}
    return replace(method, name=name, options=options)


def _search(config: TrainConfig, folder: RunFolder, task: Task) -> dict[str, Any]:
    name = config.method.name
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
        got = f"{name} on {arguments.world_size} processes"
        raise ConfigError("method.name", expected=f"{name} on one process", got=got, hint="start it by itself")
    checkpoint: Path | None = folder.checkpoint(folder.search)
    trainer_class, _ = task.trainer_classes()
    data = {"train_dataset": task.dataset("train"), "eval_dataset": task.dataset("validation")}
    trainer = run_trainer(trainer_class, _SEARCHES[name])(model=model, args=arguments, **data, **task.inputs())
    trainer.begin(resumed(checkpoint, 1), is_head=partial(is_head, task=task), optimization=optimization)
    trainer.begin_search()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.require_finite({})
    found: dict[str, Any] = trainer.found()
    ranks = found["ranks"].values()
    note(f"{name} found r from {min(ranks)} to {max(ranks)}")
    return {**found, "steps": trainer.state.global_step, "seconds": trainer.progress.train_seconds}
