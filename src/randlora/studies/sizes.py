"""Trained numbers of a cell before anything is run: from the model's config, on tensors without numbers."""

import json
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from randlora.studies.cells import Cell
from randlora.tasks import TASKS
from randlora.tasks.gguf import GGUF, converted
from randlora.tasks.sources import locate
from randlora.training.config import TrainConfig, resolve
from randlora.training.config.method_table import METHODS
from randlora.training.methods import attach, is_head

_CLASSES = {
    "sft": AutoModelForCausalLM,
    "preference": AutoModelForCausalLM,
    "image-classification": AutoModelForImageClassification,
    "text-classification": AutoModelForSequenceClassification,
}


def trained_numbers(cell: Cell) -> int | None:
    """How many numbers a cell's runs train, without the head.

    Nothing is downloaded, and no weight is read.

    Args:
        cell: The cell.

    Returns:
        None where the model's config is not on this machine, or the model cannot be made without its weights.
    """
    config = resolve(cell.config)
    if config.method.name == "head":
        return 0
    method = json.dumps(asdict(config.method), sort_keys=True)
    data = tuple(getattr(config.data, name, None) for name in ("pooling", "encoders"))
    return _counted(config.task, config.model, method, data, _Held(config))


class _Held:
    """A config that the cache does not look at: what matters of it is among the other arguments."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@cache
def _counted(name: str, model: str, _method: str, _data: tuple[Any, ...], held: _Held) -> int | None:
    config = held.config
    try:
        location = locate(model)
        location = converted(location) if location.endswith(GGUF) else location
        description = AutoConfig.from_pretrained(location, local_files_only=True)
        mean = getattr(config.data, "pooling", None) == "mean"
        kind = AutoModel if mean else _CLASSES.get(name, AutoModel)
        with torch.device("meta"):
            backbone = kind.from_config(description)
            task = TASKS[name].without_data(config.data)
            task.backbone = backbone
            if kind not in (AutoModel, AutoModelForCausalLM):
                children = (
                    (key, child)
                    for key, child in backbone.named_children()
                    if next(child.parameters(), None) is not None
                )
                task.head = tuple(key for key, _ in children if key != backbone.base_model_prefix)
            adapted = attach(task, config.method) if config.method.name in METHODS else backbone
            trained = ((key, part) for key, part in adapted.named_parameters() if part.requires_grad)
            return sum(part.numel() for key, part in trained if not is_head(key, task))
    except Exception:  # noqa: BLE001 - whatever is missing or a method asks of weights: the run will say it
        return None
