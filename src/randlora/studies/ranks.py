"""Mean ranks of methods over the columns of a table, with how far chance moves them."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

DRAWS = 10_000
CONFIDENCE = 0.95

Scores = Mapping[str, Mapping[str, float]]
"""Row -> column -> value."""


def column_ranks(scores: Scores, higher: Mapping[str, bool]) -> dict[str, dict[str, float]]:
    """Rank of every row in every column.

    Args:
        scores: What is ranked. Columns that not every row has are left out.
        higher: Column -> whether more is better.

    Returns:
        Row -> column -> rank (1 is best, ties share). Empty where no column is complete.
    """
    complete = [column for column in higher if all(column in row for row in scores.values())]
    if not complete or not scores:
        return {}
    table = np.array([[row[column] * (-1 if higher[column] else 1) for column in complete] for row in scores.values()])
    ranks = rankdata(table, axis=0).tolist()
    return {name: dict(zip(complete, own, strict=True)) for name, own in zip(scores, ranks, strict=True)}


def mean_ranks(scores: Scores, higher: Mapping[str, bool]) -> dict[str, dict[str, float]]:
    """Mean rank of every row, and the interval in which it lies when columns are drawn anew (bootstrap).

    Args:
        scores: See `column_ranks`.
        higher: Likewise.

    Returns:
        Row -> "rank", "low", "high" (95 %, percentiles; with fewer than two columns there is nothing to draw from, and
        they are left out), "columns". Empty where no column is complete.

    Example:
        >>> found = mean_ranks({"a": {"x": 1.0}, "b": {"x": 2.0}}, {"x": True})
        >>> found["b"]
        {'rank': 1.0, 'columns': 1}
    """
    by_column = column_ranks(scores, higher)
    ranks = np.array([list(own.values()) for own in by_column.values()])
    found = {name: {"rank": float(own.mean()), "columns": len(own)} for name, own in zip(by_column, ranks, strict=True)}
    count = ranks.shape[-1]
    if count > 1:
        drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
        tails = (1 - CONFIDENCE) / 2
        low, high = np.quantile(ranks[:, drawn].mean(axis=2), [tails, 1 - tails], axis=1)
        for index, name in enumerate(found):
            found[name] |= {"low": float(low[index]), "high": float(high[index])}
    return found
