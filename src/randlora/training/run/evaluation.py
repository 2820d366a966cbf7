"""Evaluation of a finished run, on its own test data or on others."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from randlora.errors import CheckpointError, ConfigError
from randlora.formats import load_adapter
from randlora.messages import note
from randlora.tasks import TASKS, Split, Task
from randlora.tasks.fingerprint import architecture_fingerprint
from randlora.training.config.file import load_config
from randlora.training.config.method_table import METHODS
from randlora.training.config.sections import TrainConfig
from randlora.training.config.validation import check_device
from randlora.training.methods import build, is_head, load_model
from randlora.training.run.arguments import training_arguments
from randlora.training.run.folder import CONFIG, RunFolder
from randlora.training.run.progress import Progress
from randlora.training.run.record import Record
from randlora.training.run.trainer import run_trainer
from randlora.training.run.weights import load_trained

CHANGEABLE = ("data.", "optimization.", "model")
"""Beginnings of the keys that may differ from training: where the data and the model lie, device, batch size."""


def evaluate(
    run_dir: str | Path, overrides: Sequence[str] = (), *, split: Split = "test", trust_remote_code: bool = False
) -> dict[str, float]:
    """Measure a finished run's model.

    Args:
        run_dir: The run's folder.
        overrides: Command-line words that take precedence over the run's config, such as
            `["--data.test", "other.csv"]`; only keys of `data` and `optimization`, and `model`, may change.
        split: "test" or "validation".
        trust_remote_code: Whether Python code that comes with the model may run; what the folder says counts for
            nothing, since somebody else may have made it.

    Returns:
        "loss" and the task's metrics by name.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: An override is unknown or would change what was trained, or there are no such data.
        DataError: The data cannot be read, or have labels unseen in training.
    """
    folder = RunFolder(run_dir)
    record = Record.load(folder.path)
    for word in overrides:
        if word.startswith("--") and not word[2:].startswith(CHANGEABLE):
            raise ConfigError(word, expected="a key of data or optimization, or model", hint="the run fixes the rest")
    config = replace(load_config(folder.path / CONFIG, overrides), trust_remote_code=trust_remote_code)
    check_device(config.optimization.device, config.optimization.precision)
    kind = TASKS[config.task]
    kind.check(config.data)
    task = kind(config.data, seed=config.seed, facts=record.facts)
    if not task.has(split):
        raise ConfigError(f"data.{split}", expected="data to evaluate on", got="none")
    found = task.fingerprint(split)  # data that do not fit are refused before the model is loaded
    asked = any(word.startswith("--data.") for word in overrides)
    if not asked and found != config.fingerprint.get(f"{split} data", found):
        trained_on = ", and examples that it was trained on may be among them" if split == "validation" else ""
        note(f"data.{split}: no longer those of the run: their content has changed since{trained_on}")
    load_model(task, config)
    return score_model(task, trained_model(task, config, folder), config, split, record.started)


def score_model(
    task: Task, model: nn.Module, config: TrainConfig, split: Split, started: str, *, unrelated: bool = False
) -> dict[str, float]:
    """Measure a model as a run does.

    Args:
        task: The run's task, with its backbone.
        model: The model, as the task wraps it.
        config: The run's config.
        split: The split.
        started: When the run was started.
        unrelated: Whether scores on data that the task does not hold (`Task.unrelated`) are added.

    Returns:
        "loss" and the task's metrics by name.
    """
    with tempfile.TemporaryDirectory() as scratch:
        trainer_class, _ = task.trainer_classes()
        trainer = run_trainer(trainer_class)(
            model=model,
            args=training_arguments(config, task, Path(scratch)),
            eval_dataset=task.dataset(split),
            **task.inputs(),
        )
        if trainer.is_fsdp_enabled:  # which shards a model together with its optimizer
            hint = "the same command without FSDP; torchrun shares the examples among processes"
            raise ConfigError("FSDP", expected="a training", got="a finished run to evaluate", hint=hint)
        trainer.begin(Progress(started), is_head=partial(is_head, task=task))
        scores = task.score(trainer, split)
        return scores | task.unrelated(trainer) if unrelated else scores


def trained_model(task: Task, config: TrainConfig, folder: RunFolder) -> nn.Module:
    """The model of a finished run.

    Args:
        task: The run's task, with its pre-trained backbone.
        config: The run's config.
        folder: The run's folder.

    Raises:
        CheckpointError: The adapter is missing, damaged or of another model.
    """
    require_architecture(task, config)
    if config.method.name in METHODS:
        return task.wrap(load_adapter(task.backbone, folder.adapter), train_head=False)
    model = build(task, config.method)
    load_trained(model, folder.adapter)
    return model


def require_architecture(task: Task, config: TrainConfig) -> None:
    """Raise unless a task's backbone is of the class, layers and shapes of a finished run's.

    Raises:
        CheckpointError: It is not.
    """
    trained_on = config.fingerprint.get("architecture")
    if trained_on not in (None, architecture_fingerprint(task.backbone)):
        expected = "the base model of the training, or one of its class, layers and shapes"
        raise CheckpointError(config.model, expected=expected, got="another")
