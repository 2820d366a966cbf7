"""Adapters on disk: PEFT's folder with λ, γ and what the user asked to save, checked before a model is touched."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from randlora.errors import CheckpointError, RandLoraError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    """The `adapter_config.json` of an adapter folder.

    Raises:
        CheckpointError: It is missing or not a JSON object with a `peft_type`.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        below = Path(folder) / "adapter"
        hint = f"of this run it is {below}" if (below / CONFIG_FILE).is_file() else ""
        raise CheckpointError(
            str(folder), expected=f"an adapter folder with {CONFIG_FILE}", got="none there", hint=hint
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), expected="JSON", got=str(error)) from error
    if not isinstance(config, dict) or "peft_type" not in config:
        raise CheckpointError(str(path), expected="a JSON object with a peft_type", hint="is this an adapter?")
    return config


def read_tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a safetensors file, without reading the tensors.

    Raises:
        CheckpointError: The file is missing, truncated or not safetensors.
    """
    if not Path(path).is_file():
        raise CheckpointError(str(path), expected="a safetensors file", got="nothing there")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise CheckpointError(
            str(path), expected="a whole safetensors file", got=str(error), hint="copy or download it again"
        ) from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: The file is missing, truncated or not safetensors, or a number in it is not finite.
    """
    read_tensor_shapes(path)
    tensors = load_file(path)
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise a CheckpointError that names the first of the tensors with NaN or infinity in it.

    Args:
        tensors: By name.
        what: Where they come from.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            hint = "the training diverged; train again with a lower learning rate"
            raise CheckpointError(f"{what}: {name}", expected="finite numbers", got="NaN or infinity", hint=hint)


def load_adapter(model: nn.Module, folder: str | Path, **kwargs: Any) -> PeftModel:
    """`PeftModel.from_pretrained` for a local folder, with the files checked first.

    Args:
        model: The base model.
        folder: An adapter folder.
        **kwargs: Passed to `PeftModel.from_pretrained` (`is_trainable`, `adapter_name`, …).

    Raises:
        CheckpointError: The files are missing, damaged, foreign or not finite, or the adapter is for another model.

    Example:
        >>> import tempfile
        >>> import peft, torch
        >>> from randlora import RandLoraConfig, load_adapter
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 12))
        >>> model = peft.get_peft_model(net, RandLoraConfig(r=2, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     loaded = load_adapter(torch.nn.Sequential(torch.nn.Linear(8, 12)), folder)
        >>> loaded(torch.ones(3, 8)).shape
        torch.Size([3, 12])
    """
    config = read_adapter_config(folder)
    read_tensors(Path(folder) / WEIGHTS_FILE)
    with adapter_file_errors(folder), missing_tensor_errors(folder):
        _check_base(config, model)
        mapping = kwargs.get("key_mapping", getattr(model, "_checkpoint_conversion_mapping", None))
        adapted = PeftModel.from_pretrained(model, str(folder), **kwargs)
        saved = load_peft_weights(str(folder), device="cpu", key_mapping=mapping)
        check_filled(adapted, kwargs.get("adapter_name", "default"), saved, str(folder))
        return adapted


def _check_base(config: Mapping[str, Any], model: nn.Module) -> None:
    """Raise unless a model is of the class that the adapter names, where it names one."""
    named = (config.get("auto_mapping") or {}).get("base_model_class")
    if named is not None and named != type(model).__name__:
        raise CheckpointError("the adapter's base model", expected=str(named), got=type(model).__name__)


def check_filled(adapted: PeftModel, adapter_name: str, saved: Mapping[str, Tensor], folder: str) -> None:
    """Raise unless an adapter is what was saved, tensor by tensor; PEFT only warns, or says nothing.

    Names alone do not tell: PEFT may rename the tensors between reading them and looking for their places.

    Args:
        adapted: The model with the adapter, after loading.
        adapter_name: The adapter's name.
        saved: The tensors of its file, by the names that PEFT reads them as.
        folder: Where they come from.

    Raises:
        CheckpointError: The file lacks a tensor of the adapter on this model, holds one too many, or one that has not
            come to its place.
    """
    wanted = get_peft_model_state_dict(adapted, adapter_name=adapter_name, save_embedding_layers=False)
    advice = "the adapter was trained on another base model or with other target modules"
    for name in wanted:
        if name not in saved:
            raise CheckpointError(f"{folder}: {name}", expected="a tensor", got="none", hint=advice)
    state = adapted.state_dict()
    known = {name.replace(f".{adapter_name}.", "."): tensor for name, tensor in state.items()} | state | wanted
    for name, tensor in saved.items():
        if name not in known:
            raise CheckpointError(f"{folder}: {name}", expected="a layer for it", got="none", hint=advice)
        if not _is_same(known[name], tensor):
            expected = "the saved numbers in the model after loading"
            raise CheckpointError(f"{folder}: {name}", expected=expected, got="others", hint="PEFT did not use them")


def _is_same(filled: Tensor, saved: Tensor) -> bool:
    """Whether a tensor of a model is the saved one, in its own dtype; what is offloaded cannot be looked at."""
    if filled.is_meta:
        return True
    # PEFT saves some methods' numbers (VB-LoRA's largest logits) as a function of them, which rounds.
    return filled.shape == saved.shape and torch.allclose(filled.cpu(), saved.to(filled.dtype).cpu(), rtol=1e-3)


@contextmanager
def adapter_file_errors(folder: str | Path) -> Iterator[None]:
    """Around what others' code makes of the files of an adapter folder: whatever it raises is a CheckpointError."""
    try:
        yield
    except (RandLoraError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise CheckpointError(
            str(folder),
            expected="an adapter of this base model",
            got=f"{type(error).__name__}: {lines[-1]}",
            hint=f"see {CONFIG_FILE}",
        ) from error


@contextmanager
def missing_tensor_errors(folder: str | Path) -> Iterator[None]:
    """Around PEFT's reading of an adapter: a module of modules_to_save that its file lacks is a CheckpointError."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(
            str(folder), expected=f"a tensor {error.args[0]}", got="none", hint="the file holds another adapter"
        ) from error
