"""Tasks of lm-evaluation-harness on a finished run: a table, and a file of it in the run's folder."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from randlora.errors import ConfigError, OutputError
from randlora.files import write_atomically, writing
from randlora.messages import closest
from randlora.tasks.paths import local
from randlora.training.language.finished import check_amounts, finished_run
from randlora.training.language.speaker import load_speaker

FILE_NAME = "harness.json"

BOOTSTRAPS = 1000
"""Draws for the error of scores that are no means; the harness' own number takes minutes."""


def evaluate_harness(
    run_dir: str | Path,
    tasks: Sequence[str],
    *,
    include: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[list[dict[str, Any]], Path]:
    """Score a finished run of a language model on tasks of lm-evaluation-harness, by its own prompts and shots.

    The scores are written into the run's folder, as `harness.json`, beside those of other tasks that are there.

    Args:
        run_dir: The run's folder.
        tasks: Names of tasks, groups or tags; `*` stands for any letters.
        include: A folder with further tasks (YAML files of the harness' form, whose Python code is run); None for none.
        limit: Examples of each task, from its beginning; None for all.
        batch_size: Examples that are answered together.
        model: Where the base model is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.

    Returns:
        A row for each score: "task", "metric", "value", "error" (standard error, or None), "shots", "examples"; and the
        file.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: A task is unknown or its data cannot be had, a number is below 1, or the run is not of a language
            model.
        OutputError: The file cannot be written, or holds something else.
    """
    check_amounts(limit, batch_size)
    run, _ = finished_run(run_dir)
    file = run.path / FILE_NAME
    before = _earlier(file)
    with _quiet():
        from lm_eval import simple_evaluate  # noqa: PLC0415 - an optional package
        from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

        manager, loaded = _load_tasks(tasks, include)
        speaker = load_speaker(str(run.path), model, trust_remote_code=trust_remote_code)
        found: Any = simple_evaluate(
            HFLM(pretrained=speaker.model, tokenizer=speaker.tokenizer, batch_size=batch_size),
            tasks=loaded,
            task_manager=manager,
            limit=limit,
            bootstrap_iters=BOOTSTRAPS,
            log_samples=False,
        )
    rows = [row for name, scores in found["results"].items() for row in _rows(name, scores, found)]
    conditions = {"limit": limit, "batch_size": batch_size, "lm_eval": version("lm_eval")}
    new: dict[str, Any] = {}
    for row in rows:
        about = {"version": found.get("versions", {}).get(row["task"]), **conditions}
        new.setdefault(row["task"], {"scores": [], **about})["scores"].append(row)
    with writing(run.path):
        write_atomically(file, json.dumps({**before, **new}, indent=2) + "\n")
    return rows, file


def _load_tasks(names: Sequence[str], include: str | Path | None) -> tuple[Any, list[Any]]:
    """The harness' list of tasks, and those named, with their data."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    folder = None if include is None else local(str(include))
    if folder is not None and not any(folder.glob("**/*.yaml")):
        raise ConfigError("--harness-tasks", expected="a folder with YAML files of tasks", got=str(include))
    manager = TaskManager(include_path=folder)
    for name in names:
        if not name or not manager.match_tasks([name]):
            near = closest(name, manager.all_tasks)
            hint = f"did you mean {near}?" if near else "see `lm-eval ls tasks`"
            raise ConfigError("--harness", expected="names of tasks that the harness has", got=repr(name), hint=hint)
    loaded: list[Any] = []
    for name in manager.match_tasks(list(names)):
        try:
            parts = manager.load([name])
        # Whatever `datasets`, the network, a task's own code and a missing package raise, of many classes.
        except Exception as error:
            raise ConfigError(
                f"--harness {name}",
                expected="a task whose data can be had",
                got=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
                hint="check the connection and the task, or give one with data of your own by --harness-tasks",
            ) from error
        whole = parts["groups"].get(name)
        loaded.extend([whole] if whole is not None else parts["tasks"].values())
    return manager, loaded


def _rows(name: str, scores: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The scores of a task, which the harness calls "METRIC,FILTER", and their errors "METRIC_stderr,FILTER"."""
    for key, value in scores.items():
        metric, comma, kept = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = scores.get(f"{metric}_stderr,{kept}")
        yield {
            "task": name,
            "metric": metric if kept == "none" else f"{metric} ({kept})",
            "value": float(value),
            "error": float(error) if isinstance(error, int | float) else None,
            "shots": found.get("n-shot", {}).get(name),
            "examples": found.get("n-samples", {}).get(name, {}).get("effective"),
        }


def _earlier(file: Path) -> dict[str, Any]:
    """What an earlier evaluation wrote."""
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(str(file), expected="scores of an earlier evaluation", got=str(error)) from error
    if not isinstance(content, dict):
        raise OutputError(str(file), expected="scores of an earlier evaluation", got="something else")
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the harness says of its settings."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
