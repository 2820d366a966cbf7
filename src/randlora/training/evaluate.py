"""Evaluation of a finished run, on its own test data or on others."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from randlora.errors import CheckpointError, ConfigError
from randlora.formats import load_adapter
from randlora.tasks import Task, input_column, load_test
from randlora.tasks.fingerprint import architecture_fingerprint
from randlora.tasks.rows import check_source
from randlora.training.config import TrainConfig
from randlora.training.config_file import load_config
from randlora.training.method_table import METHODS
from randlora.training.methods import build, is_head, task_of
from randlora.training.progress import Progress
from randlora.training.record import Record
from randlora.training.run_folder import CONFIG, RunFolder
from randlora.training.trainer import RunTrainer, training_arguments
from randlora.training.validation import check_device
from randlora.training.weights import load_trained

CHANGEABLE = ("data.", "optimization.", "model")
"""Beginnings of the keys that may differ from training: where the data and the model lie, device, batch size."""


def evaluate(
    run_dir: str | Path, overrides: Sequence[str] = (), *, trust_remote_code: bool = False
) -> dict[str, float]:
    """Measure a finished run's model.

    Args:
        run_dir: The run's folder.
        overrides: Command-line words that take precedence over the run's config, such as
            `["--data.test", "other.csv"]`; only keys of `data` and `optimization`, and `model`, may change.
        trust_remote_code: Whether Python code that comes with the model may run; what the folder says counts for
            nothing, since somebody else may have made it.

    Returns:
        "eval_accuracy" in percent, "eval_loss", "eval_runtime" in seconds, and the Trainer's other figures.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: An override is unknown or would change what was trained.
        DataError: The test data cannot be read, or have labels unseen in training.
    """
    folder = RunFolder(run_dir)
    record = Record.load(folder.path)
    for word in overrides:
        if word.startswith("--") and not word[2:].startswith(CHANGEABLE):
            raise ConfigError(word, expected="a key of data or optimization, or model", hint="the run fixes the rest")
    config = replace(load_config(folder.path / CONFIG, overrides), trust_remote_code=trust_remote_code)
    check_device(config.optimization.device, config.optimization.precision)
    if config.data.test is not None:
        check_source(config.data.test, "data.test")
    test = load_test(config.data, input_column(config.task, config.data), record.label_names)
    task = task_of(config, record.label_names)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = RunTrainer(
            training_arguments(config, Path(scratch)),
            progress=Progress(record.started),
            is_head=partial(is_head, task=task),
            model=trained_model(task, config, folder),
            eval_dataset=task.dataset(test, training_seed=None),
            data_collator=task.collate,
        )
        return trainer.evaluate()


def trained_model(task: Task, config: TrainConfig, folder: RunFolder) -> nn.Module:
    """The model of a finished run.

    Args:
        task: The run's task, with its pre-trained backbone.
        config: The run's config.
        folder: The run's folder.

    Raises:
        CheckpointError: The adapter is missing, damaged or of another model.
    """
    trained_on = config.fingerprint.get("architecture")
    if trained_on not in (None, architecture_fingerprint(task.backbone)):
        expected = "the base model of the training, or one of its class, layers and shapes"
        raise CheckpointError(config.model, expected=expected, got="another")
    if config.method.name in METHODS:
        return task.classifier(load_adapter(task.backbone, folder.adapter), train_head=False)
    model = build(task, config.method)
    load_trained(model, folder.adapter)
    return model
