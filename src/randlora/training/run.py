"""The one training path: a config in, a run folder and its record out."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from peft import PeftModel
from transformers import TrainingArguments

from randlora.errors import ConfigError, DataError
from randlora.formats import write_model_card
from randlora.tasks import Examples, input_column, load_test, load_training
from randlora.tasks.fingerprint import architecture_fingerprint, examples_fingerprint, model_fingerprint
from randlora.tasks.sources import locate
from randlora.training.config import TrainConfig, resolve
from randlora.training.memory import peak_bytes, reset_peak
from randlora.training.method_table import METHODS
from randlora.training.methods import build, is_head, task_of
from randlora.training.progress import Progress
from randlora.training.record import Record, commit, finite, hardware, versions
from randlora.training.run_folder import RunFolder
from randlora.training.trainer import RunTrainer, training_arguments
from randlora.training.validation import validate
from randlora.training.weights import folder_bytes, save_trained


def train(config: TrainConfig) -> Record:
    """Train, or resume, or return what is finished already.

    The run's folder tells which: an unfinished run of the same config goes on from its last checkpoint and ends with
    the same adapter as if it had not been interrupted. Nothing but a lock is written before the config is validated,
    the data are read and the model is built.

    Args:
        config: What to train on what; see `randlora.training.config`.

    Returns:
        The record, as in the folder's `record.json`.

    Raises:
        ConfigError: The config is wrong, or the model cannot be loaded.
        DataError: The data cannot be read or do not fit the task.
        DeviceError: The hardware asked for is not there.
        LayerError: No layer matches `method.target_modules`.
        OutputError: The folder cannot be written, holds something else, or is in use by another run.
        TrainingError: The training has diverged.
    """
    validate(config)
    config = resolve(config)
    folder = RunFolder(config.output)
    arguments = training_arguments(config, folder.checkpoints)
    # Of the processes of a distributed run, one writes.
    with folder.locked() if arguments.should_save else nullcontext():
        folder.finished(config)  # another run in the folder is refused before anything is read
        return _train(config, folder, arguments)


def _train(config: TrainConfig, folder: RunFolder, arguments: TrainingArguments) -> Record:
    # The head, LoRA's start and dropout draw from these seeds.
    transformers.set_seed(config.seed)
    column = input_column(config.task, config.data)
    examples, label_names = load_training(config.data, column, seed=config.seed)
    test = load_test(config.data, column, label_names)
    config = replace(config, fingerprint=_fingerprint(config, examples, test))
    record = folder.finished(config)
    if record is not None:
        return record
    task = task_of(config, label_names)
    config.fingerprint["architecture"] = architecture_fingerprint(task.backbone)
    inputs: dict[str, Any] = {
        "model": build(task, config.method),
        "train_dataset": task.dataset(examples, training_seed=config.seed),
        "eval_dataset": task.dataset(test, training_seed=None),
        "data_collator": task.collate,
    }
    with folder.attempt(config) if arguments.should_save else nullcontext():
        checkpoint = folder.checkpoint()
        trainer = RunTrainer(
            arguments,
            progress=Progress.load(checkpoint) if checkpoint else Progress(_now()),
            is_head=partial(is_head, task=task),
            head_learning_rate=config.optimization.head_learning_rate,
            **inputs,
        )
        counts = trainer.count_trained()
        try:
            metrics = _fit(trainer, checkpoint)
        except DataError as error:  # a loader process sends its traceback along
            raise DataError(str(error).rpartition("DataError: ")[2]) from error
        _save_adapter(folder, config, trainer)
        record = _record(config, trainer, label_names, counts, metrics, folder_bytes(folder.adapter))
        if arguments.should_save:
            folder.finish(record)
    return record


def _fingerprint(config: TrainConfig, examples: Examples, test: Examples) -> dict[str, str]:
    """What the run is about to train on, and from; refused where the config asks for something else."""
    found = {
        "training data": examples_fingerprint(examples),
        "test data": examples_fingerprint(test),
        "model": model_fingerprint(locate(config.model)),
    }
    for name, value in found.items():
        if config.fingerprint.get(name, value) != value:
            hint = "the content has changed; remove the fingerprint to train on what is there now"
            wanted = config.fingerprint[name]
            raise ConfigError(f"fingerprint of the {name}", expected=wanted, got=str(value), hint=hint)
    return {name: value for name, value in found.items() if value is not None}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _fit(trainer: RunTrainer, checkpoint: Path | None) -> dict[str, float | None]:
    """Evaluate, train, evaluate: the record's metrics."""
    progress = trainer.progress
    if progress.accuracy_before is None:
        progress.accuracy_before = trainer.evaluate()["eval_accuracy"]
    reset_peak(trainer.args.device)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    progress.peak_memory_bytes = max(progress.peak_memory_bytes, peak_bytes(trainer.args.device))
    train_loss = trainer.mean_train_loss()
    after = trainer.evaluate()
    trainer.require_finite({"loss on the test data": after["eval_loss"]})
    return {
        "eval_accuracy_before": progress.accuracy_before,
        "eval_accuracy": after["eval_accuracy"],
        "eval_loss": after["eval_loss"],
        "train_loss": finite(train_loss),
    }


def _save_adapter(folder: RunFolder, config: TrainConfig, trainer: RunTrainer) -> None:
    """Write `adapter/`: PEFT's format for its methods, the trained parameters alone for the others."""
    # Shards are gathered on every process, though only one writes.
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if not trainer.args.should_save:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.method.name not in METHODS:
        folder.save_adapter(lambda path: save_trained(model, path, state))
        return
    prefix, adapted = next((name, part) for name, part in model.named_modules() if isinstance(part, PeftModel))
    if state is not None and prefix:
        state = {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items()}

    def write(path: Path) -> None:
        adapted.save_pretrained(path, state_dict=state)
        write_model_card(adapted, path)

    folder.save_adapter(write)


def _record(
    config: TrainConfig,
    trainer: RunTrainer,
    label_names: list[str],
    counts: tuple[int, int],
    metrics: dict[str, float | None],
    adapter_bytes: int,
) -> Record:
    progress = trainer.progress
    return Record(
        method=config.method.name,
        task=config.task,
        model=config.model,
        metrics=metrics,
        trainable_parameters=counts[0],
        head_parameters=counts[1],
        adapter_bytes=adapter_bytes,
        train_seconds=progress.train_seconds,
        step_seconds_median=progress.step_seconds_median,
        peak_memory_bytes=progress.peak_memory_bytes,
        seed=config.seed,
        label_names=label_names,
        versions=versions(),
        commit=commit(),
        hardware=hardware(trainer.args.device, config.optimization.precision),
        started=progress.started,
    )
