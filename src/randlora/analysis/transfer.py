"""`randlora analyze transfer`: what a training has done to the model on data that it did not see."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from randlora.analysis.bars import bar
from randlora.analysis.runs import FinishedRun, open_runs, require_same_base, trains_prompts
from randlora.errors import ConfigError
from randlora.messages import printable
from randlora.result import Result
from randlora.tasks import TASKS, DataConfig, Task
from randlora.tasks.paths import local
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.file import load_config
from randlora.training.config.start import adapter_of
from randlora.training.methods import build, load_model
from randlora.training.run.evaluation import score_model, trained_model

_CONFIGS = (".yaml", ".yml")


def analyze_transfer(runs: Sequence[str | Path], data: str, *, trust_remote_code: bool = False) -> Result:
    """Scores of runs on other data than theirs, before and after training.

    One model is in memory at a time. A classifier with a head of its own keeps it, so that the data have to have its
    classes; CLIP classifies whatever classes the data have, by captions or by learned prompts around their names.

    Args:
        runs: Folders of finished runs of one base.
        data: A config (YAML), whose test data are taken with all that its `data` section says; or a data file, a folder
            of images or a hub name, read as the run reads its own.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        CheckpointError: A run is not finished, or damaged.
        ConfigError: The runs have other bases, the config is of another task, or a run has prompts of each class alone
            and the data have other classes.
        DataError: The data cannot be read, or have classes that the run's head has not.
    """
    opened = open_runs(runs, of_prompts=True, trust_remote_code=trust_remote_code)
    require_same_base(opened)
    sections = [_section(run, data) for run in opened]
    for run, section in zip(opened, sections, strict=True):
        _task(run, section).fingerprint("test")  # data that do not fit are refused before a model is loaded
    rows, before = [], dict[str, dict[str, float]]()
    with bar("transfer", "model", 2 * len(opened)) as progress:
        for run, section in zip(opened, sections, strict=True):
            key = _start(run, section)
            if key not in before:
                before[key] = _score(run, _task(run, section), trained=False)
            progress.update()
            rows.append(_row(run, before[key], _score(run, _task(run, section), trained=True)))
            progress.update()
    record = opened[0].record
    name = printable(Path(data).name if local(data).exists() else data)
    title = f"{record.goal} on {name}, before and after training on other data"
    found = {"rows": rows, "goal": record.goal, "unit": record.unit, "data": name}
    return Result("transfer", title, _in_words(rows, record.goal, record.unit), rows, found)


def _section(run: FinishedRun, data: str) -> DataConfig:
    """The run's data section with the other data as its test split."""
    if Path(data).suffix in _CONFIGS:
        config = load_config(local(data))
        if config.task != run.config.task:
            raise ConfigError("--data", expected=f"a config of task {run.config.task}", got=config.task)
        return config.data
    changes: dict[str, Any] = {"test": data, "validation": None}
    if not TASKS[run.config.task].trained_head:
        changes["train"] = data  # where the names of classes are read; nothing is trained
    changes |= {key: None for key in ("shots", "fraction", "class_names") if hasattr(run.config.data, key)}
    if hasattr(run.config.data, "classes"):
        changes["classes"] = "all"
    return replace(run.config.data, **changes)


def _task(run: FinishedRun, section: DataConfig) -> Task:
    kind = TASKS[run.config.task]
    kind.check(section)
    classes_of_its_own = "label_names" in run.record.facts and not kind.trained_head
    task = kind(section, seed=run.config.seed, facts=None if classes_of_its_own else run.record.facts)
    if not task.has("test"):
        raise ConfigError("--data", expected="a config with data.test", got="none")
    task.foreign = task.classes() != run.task().classes()
    if task.foreign and trains_prompts(run.config) and adapter_config(run.config.method).by_class:
        got, hint = "others", f"{run.name} has a context of each of its classes (class_specific)"
        raise ConfigError("--data", expected="the classes of the training", got=got, hint=hint)
    return task


def _start(run: FinishedRun, section: DataConfig) -> str:
    """What the scores before training depend on: a head of its own and prompts start at random, by the run's seed."""
    config = run.config
    prompts = repr(config.method) if trains_prompts(config) else None
    seed = config.seed if prompts is not None or TASKS[config.task].trained_head else None
    optimization = replace(config.optimization, learning_rate=None)
    return repr((seed, prompts, config.start_from, config.dtype, config.quantization, optimization, section))


def _score(run: FinishedRun, task: Task, *, trained: bool) -> dict[str, float]:
    config = run.config
    transformers.set_seed(config.seed)  # as training did before it made a head
    load_model(task, config)
    model = trained_model(task, config, run.folder) if trained else build(task, config.method, adapter_of(config))
    return score_model(task, model, config, "test", run.record.started, unrelated=True)


def _row(run: FinishedRun, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    goal = run.record.goal
    row: dict[str, Any] = {
        "run": run.name,
        "before": before[goal],
        "after": after[goal],
        "change": after[goal] - before[goal],
        "own before": run.record.before,
        "own after": run.record.after,
    }
    for name in ("loss", "general_loss"):
        if name in after and name != goal:
            row |= {f"{name} before": before[name], f"{name} after": after[name]}
    return row


def _in_words(rows: Sequence[dict[str, Any]], goal: str, unit: str) -> list[str]:
    lines = []
    for row in rows:
        words = f"{row['run']}: {goal} {row['before']:.4g} -> {row['after']:.4g} {unit}".rstrip()
        if row["own before"] is not None and row["own after"] is not None:
            words += f"; on its own data {row['own before']:.4g} -> {row['own after']:.4g} {unit}".rstrip()
        lines.append(words)
    return lines
