"""Task families: data -> model inputs -> loss and metric, one file each."""

from randlora.tasks.config import DataConfig
from randlora.tasks.examples import Examples, load_test, load_training
from randlora.tasks.registry import input_column, open_task
from randlora.tasks.task import Task, accuracy, classification_loss

__all__ = [
    "DataConfig",
    "Examples",
    "Task",
    "accuracy",
    "classification_loss",
    "input_column",
    "load_test",
    "load_training",
    "open_task",
]
