"""The cells of a suite: tasks × shots × methods × budgets, each with the config of its runs."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from randlora.errors import ConfigError, RandLoraError
from randlora.methods import PROMPTS
from randlora.studies.keys import SHARED, flat
from randlora.studies.suite import Budget, Budgets, Rates, Suite
from randlora.tasks import TASKS
from randlora.training.config import TrainConfig, resolve
from randlora.training.config.method_table import LORAS
from randlora.training.config.schema import check_value, config_of
from randlora.training.config.synonyms import put
from randlora.training.config.validation import check_method_section
from randlora.training.rates import check_enough, check_once
from randlora.training.run.folder import as_dict

_WITHOUT_ADAPTER = {"full", "head", *(method.name for method in PROMPTS)}
"""Methods that have no r and adapt no layer of their own."""


@dataclass(frozen=True)
class Cell:
    """A place in a study's grid.

    Attributes:
        task: Name of the task in the suite.
        shots: Name of the shots; None in a suite without.
        method: Name of the method in the suite.
        budget: Value of `method.r`; None where the method runs as it is written.
        row: The method and, where it has one, its budget: a line of the table.
        config: Of its runs, but for learning rate, seed and output.
        rates: Learning rates to begin with, ascending.
        seeds: Of the runs at the best rate.
        rate_seeds: How many of them a rate is tried with.
        tolerance: With which the best rate is chosen, see `best_rate`.
        units: The runs that have been asked for so far, since to name one takes a while.
    """

    task: str
    shots: str | None
    method: str
    budget: Budget | None
    row: str
    config: TrainConfig
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    rate_seeds: int = 1
    tolerance: float = 0.0
    units: dict[Any, Any] = field(default_factory=dict, compare=False)

    @property
    def column(self) -> str:
        """The task and its shots: a column of the table."""
        return column_of(self.task, self.shots)


def column_of(task: str, shots: str | None) -> str:
    """What a column of the table is called."""
    return task if shots is None else f"{task} {shots}"


def cells_of(suite: Suite) -> list[Cell]:
    """Every cell of a suite, in the suite's order.

    Raises:
        ConfigError: A cell's config is none of a run, or cannot be searched or scored; the message names the cell. Or
            two cells have one name, or a seed or a learning rate is there twice.
    """
    check_once("seeds", suite.seeds)
    check_enough("rate_seeds", suite.rate_seeds, suite.seeds)
    cells: list[Cell] = []
    for task in suite.tasks:
        for shots in suite.shots or [None]:
            for method in suite.methods:
                cells += _of_a_method(suite, task, shots, method)
    first = cells[0]
    for cell in cells:
        if len(cell.rates) != len(first.rates):
            count = "1 rate" if len(first.rates) == 1 else f"{len(first.rates)} rates"
            expected = f"{count}, as many as {first.method} has"
            raise ConfigError(f"methods.{cell.method}.learning_rates", expected=expected, got=str(len(cell.rates)))
    _check_names(cells)
    return cells


def _check_names(cells: Sequence[Cell]) -> None:
    """Check that no two cells have one place in the table, where one would hide the other."""
    for place, count in Counter((cell.column, cell.row) for cell in cells).items():
        if count > 1:
            hint = "a budget is there twice, or two names of tasks and shots, or of methods and budgets, read the same"
            raise ConfigError(", ".join(place), expected="one cell of that name", got=str(count), hint=hint)


def run_key(config: TrainConfig) -> str:
    """The name of a run's folder: the same for the same run, in every process and on every machine.

    Args:
        config: Of the run; where it writes to makes no difference.
    """
    content = as_dict(resolve(config))
    del content["output"], content["fingerprint"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Say of an error which cell it is about."""
    try:
        yield
    except RandLoraError as error:
        what = f"{place}: {error.what}"
        raise type(error)(what, expected=error.expected, got=error.got, hint=error.hint) from error


def rows_of(suite: Suite) -> list[str]:
    """The rows of a suite's table."""
    rows = []
    for method, section in suite.methods.items():
        rows += [_row(method, budget) for budget in _budgets(suite, dict(section), f"methods.{method}")]
    return rows


def _row(method: str, budget: Budget | None) -> str:
    """What a method at a budget is called: `lora as_lora=16`, `lora r=8`, or, as it is written, `lora`."""
    if budget is None:
        return method
    return f"{method} as_lora={budget['as_lora']}" if isinstance(budget, dict) else f"{method} r={budget}"


def _of_a_method(suite: Suite, task: str, shots: str | None, method: str) -> Iterator[Cell]:
    where = f"methods.{method}"
    section = dict(suite.methods[method])
    rates = section.pop("learning_rates", suite.learning_rates)
    own = "learning_rates" in suite.methods[method]
    check_value(f"{where}.learning_rates", rates, Rates)
    ordered = tuple(sorted(float(rate) for rate in rates))
    check_once(f"{where}.learning_rates" if own else "learning_rates", ordered)
    if not isinstance(section.get("name"), str):
        raise ConfigError(f"{where}.name", expected="the name of a method", got=repr(section.get("name")))
    budgets = _budgets(suite, section, where)
    for budget in budgets:
        row = _row(method, budget)
        with naming(", ".join(filter(None, (task, shots, row)))):
            config = _config(suite, task, shots, section, budget)
            _check(config, searched=len(ordered) > 1)
        yield Cell(
            task,
            shots,
            method,
            budget,
            row,
            config,
            ordered,
            tuple(suite.seeds),
            rate_seeds=suite.rate_seeds,
            tolerance=suite.tolerance,
        )


def _budgets(suite: Suite, section: dict[str, Any], where: str) -> list[Budget | None]:
    """What a method's r is set to; None leaves it as it is."""
    own = section.pop("budgets", None)
    if own is not None:
        check_value(f"{where}.budgets", own, Budgets)
        if own and "r" in section:
            raise ConfigError(f"{where}.budgets", expected="none beside r", got=repr(own))
    elif section.get("name") in _WITHOUT_ADAPTER or "r" in section:
        own = []
    found = suite.budgets if own is None else own
    return list(found) or [None]


def _config(suite: Suite, task: str, shots: str | None, section: dict[str, Any], budget: Budget | None) -> TrainConfig:
    keys = flat(suite.base, "base") | flat(suite.tasks[task], f"tasks.{task}")
    if shots is not None:
        keys |= flat(suite.shots[shots], f"shots.{shots}")
    shared = {key.partition(".")[2]: keys.pop(key) for key in SHARED if key in keys}
    method = {**(shared if section["name"] not in _WITHOUT_ADAPTER else {}), **section}
    if budget is not None:
        as_rank = isinstance(budget, dict) and section["name"] in LORAS
        method["r"] = budget["as_lora"] if as_rank else budget  # type: ignore[index]
    values: dict[str, Any] = {}
    for key, value in [*((f"method.{name}", value) for name, value in method.items()), *keys.items()]:
        put(values, key, deepcopy(value))  # into which a dotted key may be put
    return config_of(values)


def _check(config: TrainConfig, *, searched: bool) -> None:
    """Check what can be known of a cell without looking at this machine."""
    check_method_section(config)
    if not config.model:
        raise ConfigError("model", expected="a hub id, a folder or package:NAME/PATH", got="nothing")
    if searched and config.data.validation is None:
        hint = "a file, a hub split, or a share of the training data such as 0.1"
        raise ConfigError("data.validation", expected="one, to choose the learning rate on", got="none", hint=hint)
    if not TASKS[config.task](config.data, seed=0).has("test"):
        raise ConfigError("data.test", expected="data to score the chosen runs on", got="none")
