"""Going on from a LoRA: its update becomes part of the base weight, and a fresh adapter trains on the same layers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from safetensors.torch import load_file
from torch import Tensor, nn

from randlora.adapter.base_tuner import AdapterTuner
from randlora.adapter.kinds import LINEARS, kind_of
from randlora.adapter.targets import very_layers
from randlora.adapter.weights import layer_shape
from randlora.adapter_config import AdapterConfig
from randlora.errors import CheckpointError, ConfigError, LayerError
from randlora.formats.checkpoint import WEIGHTS_FILE, load_adapter, read_adapter_config, read_tensor_shapes

_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
_CARRIED = ("task_type", "modules_to_save")


def refine_lora(model: nn.Module, lora: str | Path, config: AdapterConfig) -> peft.PeftModel:
    """Merge a trained LoRA into its base model and put a fresh adapter on the layers that it had.

    The fresh adapter starts with ΔW = 0, so training goes on where the LoRA stopped, now with a full-rank update. What
    is saved of it belongs to the merged weights: load it with `load_adapter(merge_lora(base, lora), adapter)`. Nothing
    is changed where one of the two does not fit.

    Args:
        model: The LoRA's base model; changed in place.
        lora: The LoRA's folder.
        config: The fresh adapter, without target modules; `task_type` and `modules_to_save` are the LoRA's where it
            does not give them.

    Raises:
        CheckpointError: The folder holds no LoRA, a damaged one, or one for another model.
        ConfigError: The config names target modules, or is none of randlora's; or the model has an adapter already.
        LayerError: The LoRA is on a layer that the fresh adapter cannot be put on.

    Example:
        >>> import tempfile
        >>> import peft, torch
        >>> from randlora import RandLoraConfig, refine_lora
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 12))
        >>> lora = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lora.save_pretrained(folder)
        ...     model = refine_lora(torch.nn.Sequential(torch.nn.Linear(8, 12)), folder, RandLoraConfig(r=2))
        >>> model.base_model.model[0].get_delta_weight("default").shape
        torch.Size([12, 8])
    """
    if not isinstance(config, AdapterConfig):
        raise ConfigError("config", expected="one of randlora's configs", got=type(config).__name__)
    for name in _TARGETS:
        if getattr(config, name) is not None:
            raise ConfigError(
                name,
                expected="none",
                got=repr(getattr(config, name)),
                hint="the fresh adapter is put where the LoRA is",
            )
    old = read_adapter_config(lora)
    missing = [name for name in _CARRIED if getattr(config, name) is None]
    fields: dict[str, Any] = {name: old.get(name) for name in (*_TARGETS, *missing)}
    layers = _check_lora(model, Path(lora))
    if fields["layers_to_transform"] is not None:
        fields |= very_layers(layers)
    fresh = replace(config, **fields)
    tuner: type[AdapterTuner] = PEFT_TYPE_TO_TUNER_MAPPING[fresh.peft_type]
    tuner.matched_layers(fresh, model)  # what it refuses, it refuses before the LoRA is merged
    return peft.get_peft_model(merge_lora(model, lora), fresh)


def merge_lora(model: nn.Module, lora: str | Path) -> nn.Module:
    """Merge a LoRA into its base model, by PEFT's own arithmetic; nothing is changed where the LoRA does not fit.

    Args:
        model: The LoRA's base model; changed in place.
        lora: The LoRA's folder.

    Returns:
        The model, without adapter. Its `name_or_path` says what was merged, so that an adapter trained on it does not
        pass for one of the plain base model.

    Raises:
        CheckpointError: The folder holds no LoRA, a damaged one, or one for another model.
        ConfigError: The model has an adapter already.
        LayerError: The LoRA is on a layer that is not linear.

    Example:
        >>> import tempfile
        >>> import peft, torch
        >>> from randlora import merge_lora
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 12))
        >>> lora = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lora.save_pretrained(folder)
        ...     merged = merge_lora(torch.nn.Sequential(torch.nn.Linear(8, 12)), folder)
        >>> type(merged[0]).__name__
        'Linear'
    """
    _check_lora(model, Path(lora))
    merged = load_adapter(model, lora).merge_and_unload()
    if getattr(merged, "name_or_path", None):
        merged.name_or_path = f"{merged.name_or_path} merged with the LoRA {lora}"
    return merged


def _check_lora(model: nn.Module, folder: Path) -> set[str]:
    """Names of the LoRA's layers."""
    if isinstance(model, peft.PeftModel):
        raise ConfigError("model", expected="a base model", got="a PeftModel", hint="merge its adapter first")
    config = read_adapter_config(folder)
    if config["peft_type"] != PeftType.LORA:
        raise CheckpointError(str(folder), expected="a LoRA", got=str(config["peft_type"]))
    if config.get("alora_invocation_tokens"):
        raise CheckpointError(str(folder), expected="a LoRA that can be merged", got="an activated LoRA (aLoRA)")
    read_tensor_shapes(folder / WEIGHTS_FILE)
    tensors = load_file(folder / WEIGHTS_FILE)
    layers = set()
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"adapter tensor {name}", expected="finite numbers", got="NaN or infinity")
        layer, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        if part:
            _check_layer(model, layer, part, tensor)
            layers.add(layer)
    return layers


def _check_layer(model: nn.Module, name: str, part: str, tensor: Tensor) -> None:
    try:
        layer = model.get_submodule(name)
    except AttributeError as error:
        raise CheckpointError(
            f"layer {name!r} of the LoRA", expected="a layer of the model", hint="it was trained on another base model"
        ) from error
    if not isinstance(layer, LINEARS) or kind_of(layer).refusal(layer):
        raise LayerError(
            f"module {name!r}", expected="nn.Linear or Conv1D, for the fresh adapter", got=type(layer).__name__
        )
    shape = layer_shape(layer)
    for factor, side, axis in (("A.", 1, 1), ("B.", 0, 0)):
        if part.startswith(factor) and tensor.shape[axis] != shape[side]:
            raise CheckpointError(
                f"layer {name!r} of the LoRA",
                expected=f"{shape[side]} {'inputs' if side else 'outputs'}",
                got=str(tensor.shape[axis]),
                hint="it was trained on another base model",
            )
