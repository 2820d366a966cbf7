"""Peak memory of many runs before anything is run: those whose steps are alike share a prediction."""

import json
from collections.abc import Iterable

import numpy as np

from randlora.tasks import TASKS
from randlora.tasks.classification.captions import captions
from randlora.tasks.classification.config import ImageTextData
from randlora.training.config import TrainConfig
from randlora.training.prediction import Prediction, predict_from_config
from randlora.training.run.folder import as_dict

_WITHOUT_EFFECT = {
    "": ("seed", "output", "fingerprint"),
    "data": (
        *("train", "validation", "test", "suite", "subset", "shots", "fraction", "columns", "metrics"),
        *("label_column", "text_column", "text_pair_column", "image_column", "class_names", "prompt_templates"),
    ),
    "optimization": ("learning_rate", "head_learning_rate", "epochs", "max_steps", "weight_decay", "scheduler"),
}
"""Keys of a run's config that do not change the memory of a step whose data are not read, but for its captions."""


BETWEEN = "numbers of classes between them in proportion"
"""What is assumed where no step was followed."""


class PeakMemory:
    """Predictions for runs. They are made when they are asked for, some five seconds each.

    With a CLIP whose text tower is adapted every step reads the captions of all classes. Of runs that differ in these
    alone, those with the fewest, the middle and the most words are predicted; what lies between is in proportion, for
    CLIP ViT-B/32 up to an eighth too much.

    Args:
        configs: The runs' configs, resolved.
    """

    def __init__(self, configs: Iterable[TrainConfig]) -> None:
        self._groups: dict[str, dict[int, TrainConfig]] = {}
        self._known: dict[tuple[str, int], Prediction] = {}
        for config in configs:
            self._groups.setdefault(_alike(config), {}).setdefault(_words(config), config)

    def of(self, config: TrainConfig) -> Prediction:
        """The prediction for a run.

        Args:
            config: One of the configs.
        """
        group, words = _alike(config), _words(config)
        sizes = sorted(self._groups[group])
        chosen = sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})
        if words in chosen:
            return self._predicted(group, words)
        found = [self._predicted(group, size) for size in chosen]
        unknown = next((prediction for prediction in found if prediction.peak_bytes is None), None)
        if unknown is not None:
            return unknown
        peak = np.interp(words, chosen, [prediction.peak_bytes or 0 for prediction in found])
        return Prediction(round(peak), None, BETWEEN)

    def _predicted(self, group: str, words: int) -> Prediction:
        key = (group, words)
        if key not in self._known:
            self._known[key] = predict_from_config(self._groups[group][words])
        return self._known[key]


def _alike(config: TrainConfig) -> str:
    """What the runs have in common whose steps are alike, but for the captions."""
    content = as_dict(config)
    for section, keys in _WITHOUT_EFFECT.items():
        for key in keys:
            (content[section] if section else content).pop(key, None)
    return json.dumps(content, sort_keys=True)


def _words(config: TrainConfig) -> int:
    """Words that a step's captions take with their padding; 0 where it reads none."""
    data = config.data
    if not isinstance(data, ImageTextData) or data.encoders == "vision":
        return 0
    texts = captions(data, TASKS[config.task].without_data(data).facts()["label_names"])
    return len(texts) * max(len(text.split()) for text in texts)
