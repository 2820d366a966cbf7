"""The one training path: a config in, a run folder and its record out."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers import IntervalStrategy, TrainingArguments
from transformers.training_args import ParallelMode

from randlora.errors import ConfigError, DataError
from randlora.methods import PROMPTS
from randlora.tasks import TASKS, Split, Task
from randlora.tasks.fingerprint import architecture_fingerprint, model_fingerprint
from randlora.tasks.sources import locate
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.sections import TrainConfig, resolve
from randlora.training.config.start import adapter_of, check_model, searches_ranks, with_start
from randlora.training.config.validation import validate
from randlora.training.methods import build, is_head, load_model
from randlora.training.run.arguments import training_arguments
from randlora.training.run.callbacks import FirstAct
from randlora.training.run.evaluation import evaluate
from randlora.training.run.folder import RunFolder
from randlora.training.run.launch import check_launch, sharding
from randlora.training.run.memory import peak_bytes, reset_peak
from randlora.training.run.progress import resumed
from randlora.training.run.rank_search import search_ranks, with_ranks
from randlora.training.run.record import Record, commit, finite, hardware, versions
from randlora.training.run.saving import save_adapter, upload
from randlora.training.run.trainer import run_trainer


def train(config: TrainConfig, *, score_test: bool = True) -> Record:
    """Train, or resume, or return what is finished already.

    The run's folder tells which: an unfinished run of the same config goes on from its last checkpoint and ends with
    the same adapter as if it had not been interrupted. Nothing but a lock is written before the config is validated,
    the data are read and the model is built.

    Args:
        config: What to train on what; see `randlora.training.config`.
        score_test: Whether the test split is scored. A search leaves it alone and asks again for what it chose: the
            finished run is then scored and not repeated.

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
    config = with_start(config)
    validate(config)
    config = resolve(config)
    check_launch(config)
    folder = RunFolder(config.output)
    task = TASKS[config.task](config.data, seed=config.seed)
    arguments = training_arguments(config, task, folder.checkpoints)
    # Of the processes of a distributed run, one writes.
    with folder.locked() if arguments.should_save else nullcontext():
        folder.finished(config)  # another run in the folder is refused before anything is read
        record = _train(config, folder, task, arguments, score_test=score_test)
        if score_test and task.has("test") and f"test_{record.goal}" not in record.metrics:
            found = evaluate(folder.path, trust_remote_code=config.trust_remote_code)
            scores = {f"test_{name}": value for name, value in found.items()}
            record = replace(record, metrics={**record.metrics, **scores})
            if arguments.should_save:
                record.save(folder.path)
        if arguments.should_save:
            upload(config, folder)
    return record


def _train(
    config: TrainConfig, folder: RunFolder, task: Task, arguments: TrainingArguments, *, score_test: bool
) -> Record:
    # The head, LoRA's start and dropout draw from these seeds.
    transformers.set_seed(config.seed)
    config = replace(config, fingerprint=_fingerprint(config, task))
    record = folder.finished(config)
    if record is not None:
        return record
    _check_classes(config, task)
    load_model(task, config)
    config.fingerprint["architecture"] = architecture_fingerprint(task.backbone)
    method, found = config.method, {}
    if searches_ranks(config):
        with folder.attempt(config), _without_traceback():
            found = search_ranks(config, folder, task)
        # The training with these ranks is anew, and the same whether the search was interrupted or not.
        transformers.set_seed(config.seed)
        load_model(task, config)
        method = with_ranks(method, found["ranks"])
    model = build(task, method, adapter_of(config))
    arguments = training_arguments(config, task, folder.checkpoints)  # the model may have something to say to them
    with folder.attempt(config) if arguments.should_save else nullcontext():
        checkpoint = folder.checkpoint()
        trainer_class, _ = task.trainer_classes()
        trainer = run_trainer(trainer_class)(model=model, args=arguments, **_datasets(task, arguments), **task.inputs())
        progress = resumed(checkpoint, arguments.world_size, sharding())
        trainer.begin(progress, is_head=partial(is_head, task=task), optimization=config.optimization)
        counts = trainer.count_trained()
        with _without_traceback():
            metrics = _fit(trainer, task, checkpoint, score_test=score_test)
        adapter_bytes = save_adapter(folder, config, task, trainer)
        record = replace(_record(config, task, trainer, counts, metrics, adapter_bytes), rank_search=found)
        if arguments.should_save:
            folder.finish(record)
    return record


@contextmanager
def _without_traceback() -> Iterator[None]:
    """A loader process sends its traceback along with what is wrong with the data."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).rpartition("DataError: ")[2]) from error


def _datasets(task: Task, arguments: TrainingArguments) -> dict[str, Any]:
    scored = arguments.eval_strategy != IntervalStrategy.NO
    return {"train_dataset": task.dataset("train"), "eval_dataset": task.dataset("validation") if scored else None}


def _fingerprint(config: TrainConfig, task: Task) -> dict[str, str]:
    """What the run is about to train on, and from; refused where the config asks for something else."""
    names: dict[str, Split] = {"training data": "train", "validation data": "validation", "test data": "test"}
    found: dict[str, str | None] = {name: task.fingerprint(split) for name, split in names.items() if task.has(split)}
    found["model"] = model_fingerprint(locate(config.model))
    check_model(config, found["model"])
    start = adapter_of(config)
    if start is not None:
        found["start"] = model_fingerprint(start)
    for name, value in found.items():
        if config.fingerprint.get(name, value) != value:
            hint = "the content has changed; remove the fingerprint to train on what is there now"
            wanted = config.fingerprint[name]
            raise ConfigError(f"fingerprint of the {name}", expected=wanted, got=str(value), hint=hint)
    return {name: value for name, value in found.items() if value is not None}


def _check_classes(config: TrainConfig, task: Task) -> None:
    """Check that prompts, or a head, that go on with training by class have the same classes as before."""
    start = adapter_of(config)
    if start is None or config.method.name not in {method.name for method in PROMPTS}:
        return
    prompts: Any = adapter_config(config.method)
    if (prompts.by_class or prompts.transfer) and Record.load(Path(start).parent).facts != task.facts():
        hint = "each of them has a context, or a row of the head, of its own"
        raise ConfigError(
            "start_from", expected="a run on these classes", got=f"{config.start_from}, on others", hint=hint
        )


def _fit(trainer: Any, task: Task, checkpoint: Path | None, *, score_test: bool) -> dict[str, float | None]:
    """Score, train, score: the record's metrics."""
    progress = trainer.progress
    if progress.before is None:
        score = partial(_score_before, trainer, task, score_test=score_test)
        if trainer.args.parallel_mode == ParallelMode.DISTRIBUTED:
            # A model that the Trainer has scored it takes for ready: each process would train its own.
            trainer.add_callback(FirstAct(score))
        else:
            score()
    reset_peak(trainer.args.device)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    progress.peak_memory_bytes = max(progress.peak_memory_bytes, peak_bytes(trainer.args.device))
    metrics: dict[str, float | None] = {**(progress.before or {}), "train_loss": finite(trainer.mean_train_loss())}
    metrics |= task.about_training()
    splits: tuple[Split, ...] = ("validation", "test") if score_test else ("validation",)
    for split in splits:
        if task.has(split):
            scores = task.score(trainer, split)
            trainer.require_finite({f"loss on the {split} data": scores["loss"]} if "loss" in scores else {})
            metrics |= {f"{split}_{name}": value for name, value in scores.items()}
    return metrics | task.unrelated(trainer)


def _score_before(trainer: Any, task: Task, *, score_test: bool) -> None:
    """Note how good the model is before training."""
    first: Split = "validation" if task.has("validation") else "test"
    with trainer.stopwatch.paused():
        scores = task.score(trainer, first) if task.has(first) and (score_test or first != "test") else {}
        before = {f"{first}_{name}_before": value for name, value in scores.items()}
        trainer.progress.before = before | {f"{n}_before": value for n, value in task.unrelated(trainer).items()}
    trainer.state.log_history.clear()  # of what comes in training
    reset_peak(trainer.args.device)


def _record(
    config: TrainConfig,
    task: Task,
    trainer: Any,
    counts: tuple[int, int],
    metrics: dict[str, float | None],
    adapter_bytes: int,
) -> Record:
    progress = trainer.progress
    return Record(
        method=config.method.name,
        task=config.task,
        model=config.model,
        goal=task.goal.metric,
        unit=task.goal.unit,
        metrics=metrics,
        trainable_parameters=counts[0],
        head_parameters=counts[1],
        adapter_bytes=adapter_bytes,
        train_seconds=progress.train_seconds,
        step_seconds_median=progress.step_seconds_median,
        peak_memory_bytes=progress.peak_memory_bytes,
        seed=config.seed,
        facts=task.facts(),
        versions=versions(),
        commit=commit(),
        hardware=hardware(trainer.args.device, config.optimization.precision),
        started=progress.started,
        history=trainer.history(),
    )
