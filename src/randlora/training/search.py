"""Search over learning rates, for comparisons in which every method gets its best one."""

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from randlora.errors import ConfigError, TrainingError
from randlora.files import expanded, write_atomically
from randlora.messages import is_first_process, note
from randlora.tasks import TASKS
from randlora.training.config.schema import check_value, check_values
from randlora.training.config.sections import TrainConfig
from randlora.training.rates import best_rate, check_enough, check_once, mean_score, rates_beyond, with_rate
from randlora.training.run.record import Record
from randlora.training.run.training_run import train
from randlora.values import BelowOne, PositiveCount

FILE_NAME = "search.json"


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        learning_rate: The best learning rate on the validation split, see `best_rate`.
        validation: Learning rate -> the goal on the validation split, see `mean_score`; None for one that diverged.
        curves: Learning rate -> what its run with the first seed logged, see `Record.history`.
        records: The runs at the best rate, seed by seed; only these have scored the test split.
    """

    learning_rate: float
    validation: dict[float, float | None]
    curves: dict[float, list[dict[str, float]]]
    records: list[Record]

    def test(self) -> list[float]:
        """The goal on the test split, seed by seed."""
        values = [record.metrics[f"test_{record.goal}"] for record in self.records]
        return [math.nan if value is None else value for value in values]

    def mean_and_spread(self) -> tuple[float, float | None]:
        """Mean of `test` and its standard deviation; None with one seed."""
        values = self.test()
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def search(
    config: TrainConfig,
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    tolerance: float = 0.0,
    rate_seeds: int = 1,
) -> Found:
    """Find the best learning rate on the validation split, and score the test split with it once for each seed.

    All rates are tried with the first seeds. While the best lies at an edge of those tried, the next one beyond it is
    tried too, as far from it as its neighbour on the other side. Each run has a folder of its own below
    `config.output`; finished runs are not repeated and an interrupted one is resumed, so the same call goes on where it
    was stopped.

    Args:
        config: What all runs share; its `seed` and `optimization.learning_rate` are replaced.
        learning_rates: Learning rates to begin with, two or more.
        seeds: Seeds of the runs at the best rate.
        tolerance: See `best_rate`.
        rate_seeds: How many of the seeds, from the first on, every rate is tried with. One is cheapest; on few
            validation examples, or near where a method diverges, its score says little of the other seeds'.

    Returns:
        What was found, which is also in `search.json` in the output folder.

    Raises:
        ConfigError: There is nothing to try, a rate or seed is there twice or is none, there are fewer seeds than
            `rate_seeds`, or no validation split is there to choose on.
        TrainingError: All rates diverged.
    """
    rates = sorted(learning_rates)
    if len(rates) < 2 or not seeds:
        raise ConfigError("search", expected="at least two learning rates and one seed", got="fewer")
    if config.data.validation is None:
        hint = "a file, a hub split, or a share of the training data such as 0.1"
        raise ConfigError("data.validation", expected="one, for the search", got="none", hint=hint)
    check_once("--rates", rates)
    check_once("--seeds", seeds)
    for rate, seed in itertools.product(rates, seeds):  # before the first is trained
        check_values(with_rate(config, rate, seed))
    check_value("--tolerance", tolerance, BelowOne)
    check_value("--rate-seeds", rate_seeds, PositiveCount)
    check_enough("--rate-seeds", rate_seeds, seeds)
    goal = TASKS[config.task].goal_for(config.data)
    tried: dict[float, list[Record | None]] = {}
    while rates:
        tried |= {rate: [_attempt(_variant(config, rate, seed)) for seed in seeds[:rate_seeds]] for rate in rates}
        scores = {
            rate: mean_score([run.after if run else None for run in runs]) for rate, runs in sorted(tried.items())
        }
        rates = rates_beyond(scores, goal, len(learning_rates))
    best = best_rate(scores, goal, tolerance)
    found = Found(
        best,
        scores,
        {rate: first.history for rate, (first, *_) in sorted(tried.items()) if first},
        [train(_variant(config, best, seed)) for seed in seeds],
    )
    if is_first_process():
        content = json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n"
        write_atomically(expanded(config.output) / FILE_NAME, content)
    return found


def _attempt(config: TrainConfig) -> Record | None:
    try:
        return train(config, score_test=False)
    except TrainingError as error:
        note(f"learning rate {config.optimization.learning_rate:g}: {error}")
        return None


def _variant(config: TrainConfig, rate: float, seed: int) -> TrainConfig:
    return replace(with_rate(config, rate, seed), output=str(Path(config.output) / f"lr{rate:g}-seed{seed}"))
