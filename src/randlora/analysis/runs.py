"""Finished runs, opened to be looked at: whether they can be, and whether they can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from torch import nn

from randlora.errors import CheckpointError, ConfigError
from randlora.messages import short
from randlora.methods import PROMPTS
from randlora.tasks import TASKS, Split, Task
from randlora.training.config.file import load_config
from randlora.training.config.sections import TrainConfig
from randlora.training.methods import load_model
from randlora.training.run.evaluation import trained_model
from randlora.training.run.folder import CONFIG, RunFolder
from randlora.training.run.record import Record

_OF_TRAINING = {"train", "validation", "test", "shots", "fraction", "augment", "group_by_length"}
"""Fields of data sections that do not change what a model makes of an example; splits are compared by content."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        name: What it is called in tables.
        folder: Where it is.
        config: Its config, resolved.
        record: Its record.
    """

    name: str
    folder: RunFolder
    config: TrainConfig
    record: Record

    def task(self) -> Task:
        """The run's task, which knows the classes of the training; without its model."""
        return TASKS[self.config.task](self.config.data, seed=self.config.seed, facts=self.record.facts)

    def model(self, task: Task) -> nn.Module:
        """The trained model, evaluating, with its adapter apart from the weights; `task` gets the base model.

        Raises:
            CheckpointError: The adapter is missing, damaged or of another model.
            ConfigError: The base model cannot be loaded.
        """
        load_model(task, self.config)
        return trained_model(task, self.config, self.folder).eval()


def open_runs(
    paths: Sequence[str | Path], *, of_prompts: bool = False, trust_remote_code: bool = False
) -> list[FinishedRun]:
    """Read configs and records of finished runs that changed the weights of their model.

    Args:
        paths: Their folders.
        of_prompts: Whether runs that trained inputs of their model are taken too.
        trust_remote_code: Whether Python code that comes with a model may run, whatever the folders say.

    Raises:
        CheckpointError: A folder holds no run, an unfinished one, or one that trained a head alone; or prompts, where
            these are not asked for.
        ConfigError: A folder is named twice.
    """
    runs = [_open(path, of_prompts=of_prompts, trust_remote_code=trust_remote_code) for path in paths]
    for run in runs:
        if sum(run.folder.path.resolve() == other.folder.path.resolve() for other in runs) > 1:
            raise ConfigError("runs", expected="different folders", got=f"{run.folder.path} twice")
    short = [run.name for run in runs]
    return [replace(run, name=run.name if short.count(run.name) == 1 else str(run.folder.path)) for run in runs]


def _open(path: str | Path, *, of_prompts: bool, trust_remote_code: bool) -> FinishedRun:
    folder = RunFolder(path)
    if not (folder.path / CONFIG).is_file():
        raise CheckpointError(str(folder.path), expected=f"a run's folder, with {CONFIG}", got="none there")
    config = replace(load_config(folder.path / CONFIG), trust_remote_code=trust_remote_code)
    record = Record.load(folder.path)
    if config.method.name == "head":
        got = "method 'head', which trained none"
        raise CheckpointError(str(folder.path), expected="a run that trained weights of its model", got=got)
    if not of_prompts and trains_prompts(config):
        got = f"method '{config.method.name}', which trained inputs"
        raise CheckpointError(str(folder.path), expected="a run that trained weights of its model", got=got)
    if not folder.adapter.is_dir():
        raise CheckpointError(str(folder.path), expected="a run with its adapter", got="no adapter/ there")
    name = short(folder.path.resolve().name)
    return FinishedRun(name, folder, config, record)


def trains_prompts(config: TrainConfig) -> bool:
    """Whether a run trains inputs of its model, and no weight."""
    return config.method.name in {method.name for method in PROMPTS}


def require_same_base(runs: Sequence[FinishedRun]) -> None:
    """Raise unless all runs began one task with the same model: the same files of the same architecture.

    Raises:
        ConfigError: Two did not.
    """
    first = runs[0]
    for run in runs[1:]:
        if first.config.task != run.config.task:
            got = f"{first.config.task} in {first.name}, {run.config.task} in {run.name}"
            raise ConfigError("runs", expected="runs of one task", got=got)
        if first.config.quantization != run.config.quantization:
            got = f"{first.config.quantization} in {first.name}, {run.config.quantization} in {run.name}"
            raise ConfigError("runs", expected="runs of one quantization", got=got)
        if _base(first) != _base(run):
            got = f"{first.config.model} in {first.name}, {run.config.model} in {run.name}"
            got += ", changed in between" if first.config.model == run.config.model else ""
            raise ConfigError("runs", expected="runs of one base model", got=got)


def _base(run: FinishedRun) -> tuple[str | None, ...]:
    known = run.config.fingerprint
    return (known.get("model", run.config.model), known.get("architecture"))


def require_same_data(runs: Sequence[FinishedRun], split: Split) -> None:
    """Raise unless all runs know the same data as a split, and read an example in the same way.

    Raises:
        ConfigError: Two do not, or a run has no such split, or another than when it was made.
        DataError: The data cannot be read.
    """
    first = runs[0]
    for run in runs:
        task = run.task()
        if not task.has(split):
            raise ConfigError(f"data.{split} of {run.name}", expected="data to look at", got="none")
        trained_beside = run.config.fingerprint.get(f"{split} data")
        if trained_beside not in (None, task.fingerprint(split)):
            got = "others, whose content has changed since"
            raise ConfigError(f"data.{split} of {run.name}", expected="those of the run", got=got)
        if trained_beside != first.config.fingerprint.get(f"{split} data"):
            raise ConfigError("runs", expected=f"runs with the same {split} data", got=f"others in {run.name}")
        if run.record.facts != first.record.facts:
            raise ConfigError("runs", expected="runs on the same classes", got=f"others in {run.name}")
        for entry in fields(first.config.data):
            ours, others = getattr(first.config.data, entry.name), getattr(run.config.data, entry.name)
            if entry.name not in _OF_TRAINING and ours != others:
                got = f"data.{entry.name} {ours!r} in {first.name}, {others!r} in {run.name}"
                raise ConfigError("runs", expected="runs that read their data in one way", got=got)


def choose_split(runs: Sequence[FinishedRun], wanted: Literal["test", "validation"] | None) -> Split:
    """The split to look at: the one asked for, else validation where all runs have one, else test."""
    if wanted is not None:
        return wanted
    return "validation" if all(run.task().has("validation") for run in runs) else "test"
