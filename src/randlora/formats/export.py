"""An adapter as a LoRA: the nearest matrix of a given rank to each ΔW, in a folder for every tool that reads LoRA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from randlora.adapter.targets import very_layers
from randlora.adapter_config import check_count
from randlora.errors import ConfigError, LayerError
from randlora.files import new_folder
from randlora.formats.base_weights import changed_by
from randlora.formats.checkpoint import WEIGHTS_FILE

_EXACT_SIDE = 1024
"""Up to this smaller side the exact decomposition takes less than a second."""
_OVERSAMPLING, _ITERATIONS, _SEED = 32, 16, 0
"""With these the energy of random ΔW, whose spectra are the flattest, was within 3e-4 of the exact one's."""
# Fields with one name and one meaning in every adapter config; not all configs have all.
_SHARED_FIELDS = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "revision",
    "target_modules",
    "task_type",
)


@dataclass(frozen=True)
class LayerExport:
    """One layer of an exported adapter.

    Attributes:
        name: Its module's name in the base model.
        energy: ‖ΔW_k‖²/‖ΔW‖² (Frobenius), from 0 to 1; 1 where ΔW = 0.
    """

    name: str
    energy: float


@dataclass(frozen=True)
class LoraExport:
    """What an export kept of the adapter.

    Attributes:
        rank: The LoRA's rank k.
        layers: Every adapted layer, in the model's order.
    """

    rank: int
    layers: tuple[LayerExport, ...]

    @property
    def mean_energy(self) -> float:
        """Mean of the layers' energies."""
        return sum(layer.energy for layer in self.layers) / len(self.layers)

    @property
    def worst(self) -> LayerExport:
        """The layer that lost most."""
        return min(self.layers, key=lambda layer: layer.energy)


def export_lora(model: peft.PeftModel, rank: int, path: str | Path, adapter_name: str = "default") -> LoraExport:
    """Write an adapter as a LoRA of rank k: per layer the matrix of rank k that is nearest to ΔW (Eckart-Young).

    ΔW of RandLoRA has full rank, so a LoRA loses of it what `energy` says; merge the adapter where nothing may be lost.
    The decomposition is exact on small layers or for ranks near the smaller side, else a randomized one (Halko et al.,
    2011) with a fixed seed. lora_alpha is k, so the LoRA's scaling is 1. PEFT's `save_as_lora` is always exact, and
    slow for it on large layers, and does not tell what was lost.

    Args:
        model: The base model with the adapter; any method of PEFT's whose layers tell their ΔW will do.
        rank: k, from 1 to the smallest side of the adapted layers.
        path: The folder to write; new or empty.
        adapter_name: Which adapter.

    Returns:
        The energy that each layer keeps.

    Raises:
        ConfigError: There is no such adapter, it trains biases, or the rank is not an integer of 1 or more.
        LayerError: The adapter changes the base weights (PiSSA, OLoRA), no layer is adapted, or one is smaller than the
            rank, not linear, or its ΔW no matrix to add or not finite.
        OutputError: The folder cannot be written.

    Example:
        >>> import tempfile
        >>> import peft, torch
        >>> from randlora import RandLoraConfig, export_lora
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 12))
        >>> config = RandLoraConfig(r=2, target_modules=["0"], init_weights=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = export_lora(peft.get_peft_model(net, config), 8, folder)
        >>> [(layer.name, round(layer.energy, 3)) for layer in exported.layers]  # rank 8 is that of an 8 x 12 layer
        [('0', 1.0)]
    """
    layers = _adapted_layers(model, adapter_name)
    _check_rank(layers, rank)
    tensors, exported = _whole_modules(model, adapter_name), []
    with new_folder(path) as folder:
        for name, layer in layers.items():
            A, B, energy = _factors(name, layer, rank, adapter_name)
            tensors |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
            exported.append(LayerExport(name.removeprefix("base_model.model."), energy))
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        _lora_config(model.peft_config[adapter_name], layers, rank).save_pretrained(folder)
    return LoraExport(rank, tuple(exported))


def adds_delta(layer: Any, adapter_name: str) -> bool:
    """Whether a tuner's layer adds its `get_delta_weight` to the weight and does no more.

    PEFT says of DoRA, which also scales the sum, that it can become a LoRA; so of every variant of LoRA.

    Args:
        layer: The layer.
        adapter_name: Which adapter.
    """
    varied = adapter_name in getattr(layer, "lora_variant", {})
    return not varied and bool(layer.supports_lora_conversion(adapter_name))


def _adapted_layers(model: peft.PeftModel, adapter_name: str) -> dict[str, BaseTunerLayer]:
    if not isinstance(model, peft.PeftModel):
        raise ConfigError("model", expected="a PeftModel", got=type(model).__name__, hint="it was trained without one")
    if adapter_name not in model.peft_config:
        known = ", ".join(map(repr, model.peft_config))
        raise ConfigError("adapter_name", expected=f"one of {known}", got=repr(adapter_name))
    _check_config(model.peft_config[adapter_name])
    layers, method = {}, model.peft_config[adapter_name].peft_type.value
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer) or adapter_name not in module._get_available_adapters():
            continue
        base_layer = module.get_base_layer()
        if not isinstance(base_layer, (nn.Linear, Conv1D)):
            raise LayerError(name, expected="a linear layer", got=type(base_layer).__name__)
        if not adds_delta(module, adapter_name):
            layer = getattr(module, "lora_variant", {}).get(adapter_name, module)
            got = f"{type(layer).__name__} of {method}"  # PEFT's classes often say but `Linear`
            hint = "merge the adapter, or keep it beside the model"
            raise LayerError(name, expected="an update that adds a ΔW to the weight", got=got, hint=hint)
        layers[name] = module
    if not layers or not hasattr(model.peft_config[adapter_name], "target_modules"):
        got = f"{method}, which changes no weight"
        raise LayerError("the adapter", expected="one with a ΔW for each of some layers", got=got)
    return layers


def _check_config(config: peft.PeftConfig) -> None:
    """Check that all of an adapter is in what it adds to weights that stay."""
    for name, none in (("bias", "none"), ("lora_bias", False)):
        value = getattr(config, name, none)
        if value != none:
            hint = "a LoRA has no biases; merge the adapter instead"
            raise ConfigError(f"{name}={value!r}", expected=repr(none), hint=hint)
    start = changed_by(config)
    if start is not None:
        hint = "merge the adapter instead"
        raise LayerError("the adapter", expected="one that leaves the base weights as they are", got=start, hint=hint)


def _check_rank(layers: dict[str, BaseTunerLayer], rank: int) -> None:
    check_count("rank", rank)
    for name, layer in layers.items():
        side = min(layer.in_features, layer.out_features)
        if rank > side:
            raise LayerError(name, expected=f"a rank of at most {side}, its smaller side", got=str(rank))


@torch.no_grad()
def _factors(
    name: str, layer: BaseTunerLayer, rank: int, adapter_name: str
) -> tuple[Float[Tensor, "k in"], Float[Tensor, "out k"], float]:
    """A with orthonormal rows, B and the energy of one layer."""
    delta = layer.get_delta_weight(adapter_name)
    delta = (delta.T if isinstance(layer.get_base_layer(), Conv1D) else delta).to("cpu")
    if not torch.isfinite(delta).all():
        raise LayerError(name, expected="a finite ΔW", hint="the adapter holds NaN or infinity")
    U, S, V = truncated_svd(delta.to(torch.promote_types(delta.dtype, torch.float32)), rank)
    total = delta.double().square().sum().item()
    energy = min(1.0, S.double().square().sum().item() / total) if total else 1.0
    return (V.T.to(delta.dtype).contiguous(), (U * S).to(delta.dtype).contiguous(), energy)


def truncated_svd(
    matrix: Float[Tensor, "rows columns"], rank: int
) -> tuple[Float[Tensor, "rows k"], Float[Tensor, " k"], Float[Tensor, "columns k"]]:
    """The k largest singular values with their vectors; the same for the same matrix.

    Args:
        matrix: In float32 or float64.
        rank: k, from 1 to the smaller side.

    Returns:
        U, S and V with U·diag(S)·Vᵀ ≈ matrix.
    """
    small = min(matrix.shape)
    size = rank + _OVERSAMPLING
    if small <= _EXACT_SIDE or 4 * size > small:
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        return U[:, :rank], S[:rank], Vh[:rank].T
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        U, S, V = torch.svd_lowrank(matrix, size, niter=_ITERATIONS)
    return U[:, :rank], S[:rank], V[:, :rank]


def _lora_config(config: peft.PeftConfig, layers: dict[str, BaseTunerLayer], rank: int) -> peft.LoraConfig:
    shared = {name: getattr(config, name) for name in _SHARED_FIELDS if hasattr(config, name)}
    if shared.get("layers_to_transform") is not None:
        shared |= very_layers(layers)
    transposed = any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers.values())
    return peft.LoraConfig(r=rank, lora_alpha=rank, fan_in_fan_out=transposed, inference_mode=True, **shared)


def _whole_modules(model: peft.PeftModel, adapter_name: str) -> dict[str, Tensor]:
    """What the adapter trained whole (`modules_to_save`), by its names in an adapter file."""
    names = tuple(f"{n}." for n, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper))
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    return {name: tensor.contiguous() for name, tensor in state.items() if name.startswith(names)}
