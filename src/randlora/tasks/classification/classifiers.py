"""A pre-trained model with a head for the data's classes: the one it comes with, or a fresh one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from randlora.errors import ConfigError
from randlora.tasks.classification.heads import class_names, fit_head, output_layer
from randlora.tasks.sources import load


def load_classifier(
    architecture: Any, model: str, label_names: Sequence[str], *, trust_remote_code: bool
) -> tuple[Any, Mapping[str, Any], list[str] | None]:
    """Load a model of transformers for the data's classes, in float32.

    Left to itself transformers would take the dtype of the file: a head, or all weights, trained in 16 bits lose the
    small steps.

    Args:
        architecture: An auto class of transformers.
        model: Hub id, folder or `package:NAME/PATH`.
        label_names: Names of the classes, in the order of their numbers.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The model, what transformers reports of the loading, and what the model itself calls its classes, if it does.

    Raises:
        ConfigError: It cannot be loaded.
    """
    trust = {"trust_remote_code": trust_remote_code}
    known = class_names(load(AutoConfig.from_pretrained, model, what="config", **trust))
    loaded, report = load(
        architecture.from_pretrained,
        model,
        what="weights",
        use_safetensors=True,
        dtype=torch.float32,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        # A head for other classes starts anew; nothing else may, see `head_of`.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **trust,
    )
    return loaded, report, known


def head_of(model: Any, report: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a model's children that are its head: all with parameters beside the pre-trained part.

    Args:
        model: From `load_classifier`.
        report: Likewise.

    Raises:
        ConfigError: A tensor outside of the head has another shape in the file than config.json says.
    """
    head = tuple(
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    )
    wrong = sorted(name for name, *_ in report["mismatched_keys"] if name.split(".")[0] not in head)
    if wrong:
        raise ConfigError(
            "model", expected="weights of the shapes its config.json says", got=f"another shape of {wrong[0]}"
        )
    return head


def was_loaded(name: str, report: Mapping[str, Any]) -> bool | None:
    """Whether a head's weight came with the model: True, False for one of another shape, None for none."""
    if name in {key for key, *_ in report["mismatched_keys"]}:
        return False
    return None if name in report["missing_keys"] else True


def fit_loaded_head(
    model: nn.Module,
    head: Sequence[str],
    report: Mapping[str, Any] | bool | None,
    known: Sequence[str] | None,
    label_names: Sequence[str],
) -> str:
    """Fit the head that came with a model, if one did, to the data's classes.

    Args:
        model: The classifier.
        head: Names of its children that are the head.
        report: What transformers reports of the loading, or, for a head that was loaded otherwise, as `was_loaded`.
        known: What the model calls its classes.
        label_names: The data's classes.

    Returns:
        What was done, for the user; empty where there was nothing to do.
    """
    found = output_layer(model, head, len(label_names))
    if found is None:
        return ""
    name, layer = found
    loaded = was_loaded(f"{name}.weight", report) if isinstance(report, Mapping) else report
    if loaded is None:
        return ""
    if not loaded:
        return f"the model's head is not for {len(label_names)} classes, as the data have; the head starts anew"
    return fit_head(model, layer, known, label_names)
