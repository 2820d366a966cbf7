"""Which learning rates a search tries, and which of them it takes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from randlora.errors import ConfigError, TrainingError
from randlora.tasks import Goal
from randlora.training.config.sections import TrainConfig

WIDENINGS = 4
"""Rates that a search tries beyond its grid, at most."""


def check_once(key: str, values: Sequence[float]) -> None:
    """Check that no value is there twice, which would be run once and counted twice.

    Raises:
        ConfigError: One is.
    """
    for value, count in Counter(values).items():
        if count > 1:
            raise ConfigError(key, expected="different values", got=f"{value}, {count} times")


def check_enough(key: str, count: int, seeds: Sequence[int]) -> None:
    """Check that there are as many seeds as a rate is to be tried with.

    Raises:
        ConfigError: There are fewer.
    """
    if count > len(seeds):
        hint = "give more seeds, or fewer to choose by"
        raise ConfigError(key, expected=f"at most the number of seeds, {len(seeds)}", got=str(count), hint=hint)


def mean_score(scores: Sequence[float | None]) -> float | None:
    """The score of a rate by its runs with several seeds; None where one of them diverged, as the next may."""
    finite = [score for score in scores if score is not None]
    return fmean(finite) if len(finite) == len(scores) else None


def best_rate(scores: Mapping[float, float | None], goal: Goal, tolerance: float = 0.0) -> float:
    """The learning rate with the best score, or the lowest with one that is hardly worse.

    On language models the last bit of a score took twice the rate, and twice as much of what they knew was forgotten
    (docs/accuracy.md).

    Args:
        scores: Learning rate -> the goal on the validation split; None for one that diverged.
        goal: Says which is better.
        tolerance: By how much a score may be worse than the best, as a share of the best; 0 takes the best.

    Raises:
        TrainingError: All diverged.
    """
    finite = {rate: score for rate, score in scores.items() if score is not None}
    if not finite:
        raise TrainingError("search", expected="a learning rate that does not diverge", got="none", hint="lower them")
    best = finite[goal.best(finite)]
    return min(rate for rate, score in finite.items() if abs(score - best) <= tolerance * abs(best))


def rates_beyond(scores: Mapping[float, float | None], goal: Goal, begun: int) -> list[float]:
    """The rate to try next, where the best is at an edge of those tried; else none.

    It is as far from the best as the best's neighbour on the other side, in two digits; of rates that lie so near one
    another that these are those of a rate tried already, there is none, nor beyond what a number can hold.

    Args:
        scores: See `best_rate`.
        goal: Likewise.
        begun: How many rates the search began with.
    """
    rates, best = sorted(scores), best_rate(scores, goal)
    finite = [score for score in scores.values() if score is not None]
    alike = len(finite) > 1 and len(set(finite)) == 1  # then no way leads up
    if len(rates) >= begun + WIDENINGS or alike:
        return []
    neighbours = {rates[0]: rates[1], rates[-1]: rates[-2]}
    if best not in neighbours:
        return []
    beyond = _rounded(best * best / neighbours[best])
    return [beyond] if 0 < beyond < math.inf and beyond not in scores else []


def with_rate(config: TrainConfig, rate: float, seed: int) -> TrainConfig:
    """The config of one run of a search."""
    return replace(config, seed=seed, optimization=replace(config.optimization, learning_rate=rate))


def _rounded(rate: float) -> float:
    """To two digits: 3e-3 follows 1e-3 and 3e-4."""
    return float(f"{rate:.1e}")
