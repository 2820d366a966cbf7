"""What a text task's data section asks for beside classes: numbers, other metrics, files without a header."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from randlora.errors import ConfigError
from randlora.tasks.classification.config import TextData
from randlora.tasks.classification.metrics import METRICS
from randlora.tasks.rows import is_local
from randlora.tasks.tables import SEPARATED


def metric_names(data: TextData) -> list[str]:
    """The metrics of a data section, the goal first."""
    if data.metrics is not None:
        return list(data.metrics)
    return ["pearson", "spearman"] if data.regression else ["accuracy"]


def check_text_data(data: TextData) -> None:
    """Check the options against one another.

    Raises:
        ConfigError: A metric is not for such labels or its package is missing, or an option has no use.
    """
    names = metric_names(data)
    fitting = [name for name, metric in METRICS.items() if metric.of_numbers == data.regression]
    wrong = [name for name in names if name not in fitting]
    if not names or wrong or len(set(names)) < len(names):
        kind = "numbers" if data.regression else "classes"
        expected = f"different metrics of {kind}, {', '.join(fitting)}"
        raise ConfigError("data.metrics", expected=expected, got=", ".join(wrong or names) or "none")
    for name in names:
        package = METRICS[name].package
        if package is not None and importlib.util.find_spec(package) is None:
            hint = "pip install 'randlora[suites]'"
            raise ConfigError("data.metrics", expected=f"the package {package} for {name}", got="none", hint=hint)
    if data.regression and data.shots is not None:
        hint = "data.fraction takes a share"
        raise ConfigError("data.shots", expected="none where labels are numbers", got=str(data.shots), hint=hint)
    if data.text_pair_column == data.text_column:
        expected = "another column than data.text_column"
        raise ConfigError("data.text_pair_column", expected=expected, got=f"'{data.text_column}'")
    for source in (data.train, data.validation, data.test):
        named = data.columns is not None and isinstance(source, str) and is_local(source)
        if named and Path(str(source)).suffix.lower() not in SEPARATED:
            expected = f"none but for {' and '.join(SEPARATED)} files"
            raise ConfigError("data.columns", expected=expected, got=f"names of columns, and {source}")


def regression_loss(
    outputs: Mapping[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Mean squared error.

    Args:
        outputs: With "logits" (batch, 1).
        labels: (batch,), floats.
        num_items_in_batch: Examples in the whole accumulated batch; the mean is then taken over these.

    Returns:
        A scalar, in fp32.
    """
    predicted = outputs["logits"].float().squeeze(-1)
    if num_items_in_batch is None:
        return nn.functional.mse_loss(predicted, labels)
    return nn.functional.mse_loss(predicted, labels, reduction="sum") / num_items_in_batch
