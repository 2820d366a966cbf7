"""Another adapter's numbers in the place of a loaded one's: nothing is allocated, replaced or compiled again."""

from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.base_shapes import check_shapes
from randlora.adapter_config import AdapterConfig
from randlora.errors import CheckpointError, ConfigError, UpdateError
from randlora.formats.checkpoint import WEIGHTS_FILE, missing_tensor_errors, read_adapter_config, read_tensors

# ΔW does not depend on these, or the names and shapes of the tensors tell them.
_IRRELEVANT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "base_blocks",
        "base_shapes",
        "dropout",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_weights",
        "layers_pattern",
        "layers_to_transform",
        "modules_to_save",
        "peft_version",
        "revision",
        "strategy",
        "strategy_pattern",
        "target_modules",
        "target_parameters",
        "task_type",
    }
)


def swap_adapter(model: nn.Module, folder: str | Path, adapter_name: str = "default") -> None:
    """Overwrite a loaded adapter's trained numbers with those of a saved one, in place.

    A model that was compiled with `torch.compile` is not compiled again. What PEFT's `hotswap_adapter` does for LoRA,
    and refuses for other methods. Both adapters must have the same bases and scaling, and layers of the same shapes;
    nothing is changed otherwise.

    Args:
        model: A `PeftModel`, compiled or not.
        folder: The folder of the adapter to put in.
        adapter_name: The adapter to overwrite; it keeps its name.

    Raises:
        CheckpointError: The folder is damaged, or its adapter does not fit the loaded one.
        ConfigError: There is no such adapter, or it is not one of this package.
        UpdateError: The adapter is merged into the base weights.

    Example:
        >>> import tempfile
        >>> import peft, torch
        >>> from randlora import RandLoraConfig, swap_adapter
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 12))
        >>> model = peft.get_peft_model(net, RandLoraConfig(r=2, target_modules=["0"]))
        >>> gamma = model.base_model.model[0].randlora_gamma["default"].weight
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     _ = torch.nn.init.ones_(gamma)  # a training, say
        ...     swap_adapter(model, folder)
        >>> gamma.abs().sum().item()  # as it was saved
        0.0
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
    config = model.peft_config.get(adapter_name) if isinstance(model, PeftModel) else None
    if not isinstance(config, AdapterConfig):
        raise ConfigError(f"adapter {adapter_name!r}", expected="a loaded adapter of randlora's", got=str(config))
    if any(adapter_name in m.merged_adapters for m in model.modules() if isinstance(m, AdapterLayer)):
        raise UpdateError(f"adapter {adapter_name!r}", expected="an unmerged one", hint="call unmerge_adapter()")
    _check_config(config, folder)
    tensors = read_tensors(Path(folder) / WEIGHTS_FILE)
    _check_names(model, tensors, adapter_name)
    # PEFT's load copies into the parameters, after the tuner has compared all names and shapes.
    with missing_tensor_errors(folder):
        set_peft_model_state_dict(model, tensors, adapter_name)


def _check_names(model: Any, tensors: dict[str, Tensor], adapter_name: str) -> None:
    """Raise where a tensor is none of the loaded adapter's: a module that only the other one trained is the base's."""
    tables = hasattr(model, "get_input_embeddings")  # which PEFT may have saved beside the other one
    own = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=tables)
    for name in tensors:
        if name not in own:
            raise CheckpointError(
                f"adapter tensor {name}",
                expected="none that the loaded adapter lacks",
                hint="load it as a further adapter instead",
            )


def _check_config(loaded: AdapterConfig, folder: str | Path) -> None:
    read_adapter_config(folder)
    other: dict[str, Any] = PeftConfig.from_pretrained(str(folder)).to_dict()
    check_shapes(other.get("base_shapes") or {}, loaded.base_shapes or {})
    check_shapes(loaded.base_shapes or {}, other.get("base_shapes") or {})
    for name, value in loaded.to_dict().items():
        if name not in _IRRELEVANT and other.get(name) != value:
            raise CheckpointError(
                f"{name} of the adapter to swap in",
                expected=f"{value!r}, the loaded one's",
                got=repr(other.get(name)),
                hint="load it as a further adapter instead",
            )
