"""Which learning rates a search tries, and which of them it takes."""

from collections.abc import Mapping
from dataclasses import replace

from randlora.errors import TrainingError
from randlora.tasks import Goal
from randlora.training.config.sections import TrainConfig

WIDENINGS = 4
"""Rates that a search tries beyond its grid, at most."""


def best_rate(scores: Mapping[float, float | None], goal: Goal) -> float:
    """The learning rate with the best score.

    Args:
        scores: Learning rate -> the goal on the validation split; None for one that diverged.
        goal: Says which is better.

    Raises:
        TrainingError: All diverged.
    """
    finite = {rate: score for rate, score in scores.items() if score is not None}
    if not finite:
        raise TrainingError("search", expected="a learning rate that does not diverge", got="none", hint="lower them")
    best: float = goal.best(finite)
    return best


def rates_beyond(scores: Mapping[float, float | None], goal: Goal, begun: int) -> list[float]:
    """The rate to try next, where the best is at an edge of those tried; else none.

    It is as far from the best as the best's neighbour on the other side.

    Args:
        scores: See `best_rate`.
        goal: Likewise.
        begun: How many rates the search began with.
    """
    rates, best = sorted(scores), best_rate(scores, goal)
    if len(rates) >= begun + WIDENINGS:
        return []
    if best == rates[0]:
        return [_rounded(best * best / rates[1])]
    if best == rates[-1]:
        return [_rounded(best * best / rates[-2])]
    return []


def with_rate(config: TrainConfig, rate: float, seed: int) -> TrainConfig:
    """The config of one run of a search."""
    return replace(config, seed=seed, optimization=replace(config.optimization, learning_rate=rate))


def _rounded(rate: float) -> float:
    """To two digits: 3e-3 follows 1e-3 and 3e-4."""
    return float(f"{rate:.1e}")
