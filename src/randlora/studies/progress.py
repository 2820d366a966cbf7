"""How far a cell's search is: what is known of its runs in, the runs to do next and the chosen rate out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from randlora.studies.cells import Cell, run_key
from randlora.tasks import TASKS, Goal
from randlora.training.config import TrainConfig
from randlora.training.rates import best_rate, mean_score, rates_beyond, with_rate
from randlora.training.run import Record

State = Literal["done", "running", "diverged", "failed", "missing"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Unit:
    """What a worker takes at a time: one run, trained, or one run, trained and scored on the test split.

    Attributes:
        key: Of the run, see `run_key`.
        config: Of the run.
        scores_test: Whether the test split is scored.
        words: What it is, for the reader.
    """

    key: str
    config: TrainConfig
    scores_test: bool
    words: str

    @property
    def name(self) -> str:
        """What the queue calls it."""
        return f"{self.key}-test" if self.scores_test else self.key


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Attributes:
        state: See `State`.
        record: Of the run, once it is done.
        error: Why it failed, in a line.
        scores: What the run scored beside, by column, where the suite asks for that.
    """

    state: State
    record: Record | None = None
    error: str = ""
    scores: dict[str, float | None] = field(default_factory=dict)


@dataclass
class Progress:
    """How far a cell is.

    Attributes:
        cell: The cell.
        units: All its runs so far asked for, with what became of them.
        scores: Learning rate -> the goal on the validation split; None for one that diverged. Empty with one rate.
        chosen: The learning rate whose runs score the test split; None as long as it is not known.
        to_come: Runs that are not asked for yet, at least.
    """

    cell: Cell
    units: list[tuple[Unit, Outcome]] = field(default_factory=list)
    scores: dict[float, float | None] = field(default_factory=dict)
    chosen: float | None = None
    to_come: int = 0

    @property
    def is_over(self) -> bool:
        """Whether all its runs have ended, and none has failed, which would be tried again."""
        return not (self.to_come or self.count("missing", "running", "failed"))

    def count(self, *states: State) -> int:
        """How many of the runs asked for are in a state."""
        return sum(outcome.state in states for _, outcome in self.units)

    def records(self) -> list[Record]:
        """Those of the runs that have scored the test split, seed by seed."""
        return [outcome.record for unit, outcome in self.units if unit.scores_test and outcome.record is not None]

    def scores_of(self, column: str) -> list[float | None]:
        """A score of the same runs."""
        return [outcome.scores[column] for unit, outcome in self.units if unit.scores_test and outcome.scores]


def goal_of(config: TrainConfig) -> Goal:
    """What a run is judged by."""
    return TASKS[config.task].goal_for(config.data)


def progress_of(cell: Cell, outcome_of: Callable[[Unit], Outcome]) -> Progress:
    """How far a cell is, by what is known of its runs.

    A run that failed, other than by diverging, stops its cell: without it no rate can be chosen fairly.

    Args:
        cell: The cell.
        outcome_of: What is known of a unit.
    """
    found = Progress(cell, to_come=len(cell.seeds))
    if len(cell.rates) == 1:
        found.chosen = cell.rates[0]
    else:
        found.chosen = _search(cell, found, outcome_of)
    if found.chosen is not None:
        found.to_come = 0
        for seed in cell.seeds:
            unit = _unit(cell, found.chosen, seed, scores_test=True)
            found.units.append((unit, outcome_of(unit)))
    elif found.count("failed") or not found.count("missing", "running"):
        found.to_come = 0  # nothing follows until somebody mends it
    return found


def _search(cell: Cell, found: Progress, outcome_of: Callable[[Unit], Outcome]) -> float | None:
    """Ask for the runs of the search; the best rate once it is known."""
    rates = list(cell.rates)
    while rates:
        for rate in rates:
            units = [_unit(cell, rate, seed, scores_test=False) for seed in cell.seeds[: cell.rate_seeds]]
            outcomes = [outcome_of(unit) for unit in units]
            found.units += zip(units, outcomes, strict=True)
            records = [outcome.record for outcome in outcomes]
            found.scores[rate] = mean_score([record.after if record else None for record in records])
        if found.count("missing", "running", "failed") or all(score is None for score in found.scores.values()):
            return None
        found.scores = dict(sorted(found.scores.items()))
        rates = rates_beyond(found.scores, goal_of(cell.config), len(cell.rates))
    return best_rate(found.scores, goal_of(cell.config), cell.tolerance)


def _unit(cell: Cell, rate: float, seed: int, *, scores_test: bool) -> Unit:
    place = (rate, seed, scores_test)
    if place not in cell.units:
        config = with_rate(cell.config, rate, seed)
        words = f"{cell.column}, {cell.row}, learning rate {rate:g}, seed {seed}"
        cell.units[place] = Unit(run_key(config), config, scores_test, words)
    unit: Unit = cell.units[place]
    return unit
