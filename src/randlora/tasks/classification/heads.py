"""The head that a model comes with, fitted to the data's classes by their names."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

SHOWN = 3
"""Class names that a note lists of each side."""


def class_names(config: Any) -> list[str] | None:
    """What a model's config calls its classes, in the order of the head's rows; None where it has only numbers.

    Args:
        config: The config of a transformers model; LABEL_0, LABEL_1 and so on stand for no names.
    """
    names = config.id2label or {}
    if sorted(names) != list(range(len(names))):
        return None
    known = [str(names[number]) for number in range(len(names))]
    return None if known == [f"LABEL_{number}" for number in range(len(known))] else known


def output_layer(model: nn.Module, head: Sequence[str], classes: int) -> tuple[str, nn.Linear] | None:
    """Find the layer that has a row for each class: the last such in the head, which may be deep.

    Args:
        model: The classifier.
        head: Names of its children that are the head.
        classes: Number of classes.

    Returns:
        Its name and the layer, or None in an architecture without one.
    """
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if name.split(".")[0] in head and isinstance(layer, nn.Linear) and layer.out_features == classes
    ]
    return found[-1] if found else None


def fit_head(model: Any, layer: nn.Linear, known: Sequence[str] | None, wanted: Sequence[str]) -> str:
    """Put the rows of a loaded head in the order of the data's classes, or draw them anew for other classes.

    A head without names is kept: nothing says that its classes are others.

    Args:
        model: The transformers model, whose way of starting a layer is used.
        layer: The head's last layer, (classes, features), with the weights that came with the model.
        known: Names of its rows, or None.
        wanted: Names of the data's classes, as many.

    Returns:
        What was done, for the user; empty where there was nothing to do.
    """
    if known is None:
        return (
            f"the model's head has {len(wanted)} classes without names; it is kept, for {_listed(wanted)} in this order"
        )
    if list(known) == list(wanted):
        return ""
    if sorted(known) == sorted(wanted):
        order = torch.tensor([known.index(name) for name in wanted], device=layer.weight.device)
        with torch.no_grad():
            for tensor in layer.parameters():
                tensor.copy_(tensor[order])
        return "the model's head has the data's classes in another order; its rows were put in the data's"
    parameter: Any
    for parameter in layer.parameters():
        parameter._is_hf_initialized = False  # transformers leaves alone what it has loaded
    with torch.no_grad():
        model._init_weights(layer)
    return f"the model's head is for {_listed(known)}, the data have {_listed(wanted)}; the head starts anew"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} others"
