"""Search over learning rates, for comparisons in which every method gets its best one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from randlora.errors import ConfigError
from randlora.training.config import TrainConfig
from randlora.training.record import Record
from randlora.training.run import train


def search(config: TrainConfig, learning_rates: Sequence[float], seeds: Sequence[int]) -> list[Record]:
    """Train once per learning rate and seed, each run in a folder of its own below `config.output`.

    Finished runs are not repeated and an interrupted one is resumed, so the same call goes on where it was stopped.

    Args:
        config: What all runs share; its `seed` and `optimization.learning_rate` are replaced.
        learning_rates: Learning rates to try.
        seeds: Seeds to try each with.

    Returns:
        The records, learning rate by learning rate, seed by seed.

    Raises:
        ConfigError: There is nothing to try.
    """
    if not learning_rates or not seeds:
        raise ConfigError("search", expected="at least one learning rate and one seed", got="none")
    return [train(_variant(config, rate, seed)) for rate in learning_rates for seed in seeds]


def best(records: Sequence[Record], seeds: int) -> list[Record]:
    """The records of the learning rate with the highest mean test accuracy.

    Args:
        records: What `search` returned.
        seeds: How many seeds it tried with each learning rate.
    """
    groups = [list(records[start : start + seeds]) for start in range(0, len(records), seeds)]
    return max(groups, key=lambda group: sum(record.metrics["eval_accuracy"] or 0.0 for record in group))


def _variant(config: TrainConfig, rate: float, seed: int) -> TrainConfig:
    return replace(
        config,
        seed=seed,
        output=str(Path(config.output) / f"lr{rate:g}-seed{seed}"),
        optimization=replace(config.optimization, learning_rate=rate),
    )
