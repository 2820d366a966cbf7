"""Tasks: data -> model inputs -> loss and metric, one file each."""

from randlora.tasks.classification.config import ClassificationData, ImageData, ImageTextData, TextData
from randlora.tasks.config import DataConfig
from randlora.tasks.language.config import PreferenceData, SftData
from randlora.tasks.registry import TASKS
from randlora.tasks.task import Goal, Split, Task

__all__ = [
    "TASKS",
    "ClassificationData",
    "DataConfig",
    "Goal",
    "ImageData",
    "ImageTextData",
    "PreferenceData",
    "SftData",
    "Split",
    "Task",
    "TextData",
]
