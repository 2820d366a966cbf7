"""The tasks by name."""

from randlora.tasks.classification.image import ImageClassification
from randlora.tasks.classification.image_text import ImageText
from randlora.tasks.classification.text import TextClassification
from randlora.tasks.language.preference import PreferenceTask
from randlora.tasks.language.sft import Sft
from randlora.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "text-classification": TextClassification,
    "image-text": ImageText,
    "image-classification": ImageClassification,
    "sft": Sft,
    "preference": PreferenceTask,
}
