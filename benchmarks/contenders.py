"""The methods that are compared, each with as many trained numbers as RandLoRA of the workload's rank."""

from collections.abc import Callable

import peft
import torch
from torch import nn

from randlora import RandLoraConfig
from randlora.methods import HybridConfig

PERTURBATION = 1e-3  # adapters start at ΔW = 0, where half of the gradients vanish: all trained numbers are moved a bit


def _ours(**options: object) -> Callable[[int, int, list[str] | str], peft.PeftConfig]:
    return lambda r, _, targets: RandLoraConfig(r=r, target_modules=targets, **options)


def _hybrid(r: int, rank: int, targets: list[str] | str) -> peft.PeftConfig:
    """Half of the numbers are LoRA's: RandLoRA's fall as 1/r."""
    return HybridConfig(r=2 * r, lora_r=rank // 2, target_modules=targets)


_CONFIGS: dict[str, Callable[[int, int, list[str] | str], peft.PeftConfig]] = {
    "PEFT LoRA": lambda _, rank, targets: peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets),
    "PEFT DoRA": lambda _, rank, targets: peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, use_dora=True, target_modules=targets
    ),
    "PEFT VeRA": lambda _r, _rank, targets: peft.VeraConfig(r=256, target_modules=targets),
    "PEFT RandLora": lambda r, _, targets: peft.RandLoraConfig(r=r, target_modules=targets),
    "structured": _ours(bases="structured"),
    "structured, factored": _ours(bases="structured", strategy="factored"),
    "hybrid": _hybrid,
    "uniform": _ours(bases="uniform"),
    "ternary": _ours(bases="ternary", sparsity=6.0),
}
LORA = "PEFT LoRA"
# Gradients pass through the whole model, as they do for every adapter, and next to nothing is trained.
FLOOR = "norms only (floor)"
NAMES = (FLOOR, *_CONFIGS, "full fine-tuning")


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    """Move every trained number a bit, by the same amount in every call."""
    generator = torch.Generator().manual_seed(2)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=PERTURBATION)


def lora_rank(model: nn.Module, r: int, targets: list[str] | str) -> int:
    """The rank at which LoRA trains as many numbers as RandLoRA of basis rank r."""
    adapted = peft.get_peft_model(model, RandLoraConfig(r=r, target_modules=targets))
    layers = [module for module in adapted.modules() if hasattr(module, "randlora_gamma")]
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    return round(trained / sum(layer.in_features + layer.out_features for layer in layers))


def make(name: str, model: nn.Module, r: int, rank: int, targets: list[str] | str) -> nn.Module:
    """The model under a method, in training mode, adapters away from their start; the base in its own dtype.

    Args:
        name: One of NAMES.
        model: The base model, changed in place.
        r: Basis rank of RandLoRA.
        rank: Rank of LoRA and DoRA.
        targets: The modules to adapt.
    """
    torch.manual_seed(0)
    if name in _CONFIGS:
        model = peft.get_peft_model(model, _CONFIGS[name](r, rank, targets))
        perturb(model)
    elif name == FLOOR:
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in parameter_name.lower())
    return model.train()
