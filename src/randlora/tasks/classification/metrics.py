"""Scores of predictions: GLUE's metrics, by scikit-learn and scipy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _accuracy(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(np.mean(predicted == labels))


def _f1(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    from sklearn.metrics import f1_score  # noqa: PLC0415 - an optional package

    return float(f1_score(labels, predicted, zero_division=0.0))


def _mean_f1(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    from sklearn.metrics import f1_score  # noqa: PLC0415

    return float(f1_score(labels, predicted, average="macro", zero_division=0.0))


def _matthews_correlation(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    from sklearn.metrics import matthews_corrcoef  # noqa: PLC0415

    return float(matthews_corrcoef(labels, predicted))


def _pearson(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    from scipy.stats import pearsonr  # noqa: PLC0415

    return 0.0 if _constant(predicted) or _constant(labels) else float(pearsonr(predicted, labels).statistic)


def _spearman(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    from scipy.stats import spearmanr  # noqa: PLC0415

    return 0.0 if _constant(predicted) or _constant(labels) else float(spearmanr(predicted, labels).statistic)


def _constant(values: NDArray[Any]) -> bool:
    """Whether a correlation is undefined; a model that has learned nothing yet may say one number to all."""
    return bool(np.all(values == values[0]))


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        score: Predictions and labels to a value; of classes both are their numbers.
        unit: Of the value times 100.
        of_numbers: Whether it compares numbers and not classes.
        package: The package that it needs, or None.
        of_several: What takes the place of `score` where a model tells more than two classes; None means the same.
    """

    score: Callable[[NDArray[Any], NDArray[Any]], float]
    unit: str
    of_numbers: bool = False
    package: str | None = None
    of_several: Callable[[NDArray[Any], NDArray[Any]], float] | None = None


METRICS = {
    "accuracy": Metric(_accuracy, "%"),
    "f1": Metric(_f1, "%", package="sklearn", of_several=_mean_f1),
    "matthews_correlation": Metric(_matthews_correlation, "points", package="sklearn"),
    "pearson": Metric(_pearson, "points", of_numbers=True, package="scipy"),
    "spearman": Metric(_spearman, "points", of_numbers=True, package="scipy"),
}
"""The metrics by the names that configs have for them."""


def score_function(names: Sequence[str]) -> Callable[[Any], dict[str, float]]:
    """A function for the Trainer's `compute_metrics`: from its `EvalPrediction` to scores times 100.

    Args:
        names: Of `METRICS`, all of classes or all of numbers.
    """

    def scores(prediction: Any) -> dict[str, float]:
        outputs, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        numbers = METRICS[names[0]].of_numbers
        predicted = outputs.reshape(len(outputs)) if numbers else np.argmax(outputs, axis=-1)
        found = {}
        for name in names:
            metric = METRICS[name]
            # By the model's classes, since a split may lack some of them.
            score = metric.of_several if metric.of_several and outputs.shape[-1] > 2 else metric.score
            found[name] = 100.0 * score(predicted, labels)
        return found

    return scores
