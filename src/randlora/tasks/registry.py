"""The task families by name."""

from collections.abc import Sequence

from randlora.tasks.config import DataConfig
from randlora.tasks.image_text import ImageText
from randlora.tasks.task import Task
from randlora.tasks.text_classification import TextClassification


def input_column(task: str, data: DataConfig) -> str:
    """Name of the column a task family reads its inputs from.

    Args:
        task: "text-classification" or "image-text".
        data: The data section of the config.
    """
    return data.image_column if task == "image-text" else data.text_column


def open_task(
    task: str,
    model: str,
    data: DataConfig,
    label_names: Sequence[str],
    *,
    encoders: str,
    pooling: str,
    trust_remote_code: bool,
) -> Task:
    """Load a pre-trained model for a task family.

    Args:
        task: "text-classification" or "image-text".
        model: Hub id, folder or `package:NAME/PATH`.
        data: The data section of the config.
        label_names: Names of the classes, in the order of their numbers.
        encoders: Which towers are adapted, "both" or "vision" (image-text).
        pooling: What the head reads, "model" or "mean" (text-classification).
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ConfigError: The model cannot be loaded or is of another kind.
        DataError: `data.class_names` does not fit the labels.
    """
    if task == "image-text":
        return ImageText(model, data, label_names, encoders=encoders, trust_remote_code=trust_remote_code)
    return TextClassification(model, data, label_names, pooling=pooling, trust_remote_code=trust_remote_code)
