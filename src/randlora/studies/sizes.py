"""Trained numbers of a cell before anything is run: from the model's config, on tensors without numbers."""

import json
from dataclasses import asdict, dataclass
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

from randlora.errors import RandLoraError
from randlora.methods import PROMPTS
from randlora.methods.budget import count_trained
from randlora.methods.prompts.prompts import check_depth
from randlora.methods.svd import SvdConfig
from randlora.studies.cells import Cell
from randlora.tasks import TASKS, Task
from randlora.tasks.gguf import GGUF, converted
from randlora.tasks.sources import locate
from randlora.training.config import MethodConfig, TrainConfig, resolve
from randlora.training.config.adapter_configs import adapter_config, beside
from randlora.training.config.method_table import METHODS
from randlora.training.methods import attach, is_head, peft_config

_CLASSES = {
    "sft": AutoModelForCausalLM,
    "preference": AutoModelForCausalLM,
    "image-classification": AutoModelForImageClassification,
    "text-classification": AutoModelForSequenceClassification,
}

_DRAWN = 2**27
"""Numbers of a model that is drawn at random where a method asks for weights: half a GiB."""


@dataclass(frozen=True)
class Size:
    """What a cell's runs train.

    Attributes:
        trained: Trained numbers, without the head, or DePT's rows for the classes; None where they are not known.
        model: Numbers of the model that is adapted, its head included; None where its config is not known.
        why: Why the trained numbers are not known, in a line.
    """

    trained: int | None
    model: int | None
    why: str = ""


def size_of(cell: Cell) -> Size:
    """How many numbers a cell's runs train. Nothing is downloaded, and no weight is read.

    Args:
        cell: The cell.
    """
    config = resolve(cell.config)
    method = json.dumps(asdict(config.method), sort_keys=True)
    data = tuple(getattr(config.data, name, None) for name in ("pooling", "encoders"))
    return _size(config.task, config.model, method, data, _Held(config))


class _Held:
    """A config that the cache does not look at: what matters of it is among the other arguments."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@cache
def _size(_task: str, model: str, _method: str, _data: tuple[Any, ...], held: _Held) -> Size:
    config, task, whole = held.config, None, None
    if config.method.name == "head":
        return Size(0, None)
    try:
        for device in ("meta", "cpu"):
            with torch.device(device):
                task = _without_weights(config)
                whole = sum(part.numel() for part in task.backbone.parameters())
                try:
                    return Size(_trained(task, config.method), whole)
                except RandLoraError as error:  # PEFT's methods that look at weights take random ones as well
                    if device == "cpu" or whole > _DRAWN:
                        return Size(None, whole, str(error))
    except Exception as error:  # noqa: BLE001 - whatever is missing, the run will say it
        lines = str(error).strip().splitlines() or [""]
        return Size(None, whole, f"{model}: its config cannot be had here: {type(error).__name__}: {lines[0]}")
    raise AssertionError("unreachable")


def _without_weights(config: TrainConfig) -> Task:
    """The task with a model of the config's kind, as new."""
    location = locate(config.model)
    location = converted(location) if location.endswith(GGUF) else location
    description = AutoConfig.from_pretrained(location, local_files_only=True)
    mean = getattr(config.data, "pooling", None) == "mean"
    kind = AutoModel if mean else _CLASSES.get(config.task, AutoModel)
    task = TASKS[config.task].without_data(config.data)
    task.backbone = backbone = kind.from_config(description)
    if kind not in (AutoModel, AutoModelForCausalLM):
        children = ((key, child) for key, child in backbone.named_children() if any(True for _ in child.parameters()))
        task.head = tuple(key for key, _ in children if key != backbone.base_model_prefix)
    return task


def _trained(task: Task, method: MethodConfig) -> int:
    """Trained numbers of a method beside the head.

    Raises:
        RandLoraError: They cannot be known, or the method does not fit the model.
    """
    prompts = next((entry for entry in PROMPTS if entry.name == method.name), None)
    if prompts is not None:
        return _of_prompts(prompts, task, method)
    adapted: Any = task.backbone
    if method.name in METHODS:
        if issubclass(METHODS[method.name].config, SvdConfig):  # it would decompose the weights
            found: Any = peft_config(task, method)
            return count_trained(found, task.backbone)
        adapted = attach(task, method)
    return sum(
        part.numel() for key, part in adapted.named_parameters() if part.requires_grad and not is_head(key, task)
    )


def _of_prompts(prompts: Any, task: Task, method: MethodConfig) -> int:
    config: Any = adapter_config(method)
    if config.by_class:
        raise RandLoraError("class_specific", expected="the number of classes, which the data know", got="none")
    if hasattr(config, "depth"):
        check_depth(config, task.backbone)
    other = beside(method)
    trained: int = prompts.trained(config, task.backbone.config)
    return trained + (0 if other is None else _trained(task, other))
