"""Every method of this package on `Net`, with numbers that make its update count: for what holds for all of them."""

import peft
import torch

from networks import Net
from randlora import RandLoraConfig
from randlora.adapter import AdapterLayer
from randlora.methods import (
    CATALOGUE,
    HybridConfig,
    HydraLoraConfig,
    LoraXsConfig,
    NolaConfig,
    PrancConfig,
    RandLoraAConfig,
    SpectralConfig,
    SvftConfig,
)

SEED = 3
METHODS = {
    "randlora": (RandLoraConfig, {"r": 4, "alpha": 2.0}),
    "randlora_uniform": (RandLoraConfig, {"r": 4, "alpha": 2.0, "bases": "uniform", "seed": SEED}),
    "randlora_b": (RandLoraConfig, {"r": 4, "alpha": 2.0, "bases": "uniform", "rank_fraction": 0.5, "seed": SEED}),
    "randlora_a": (RandLoraAConfig, {"r": 3, "alpha": 2.0, "bases": "normal", "seed": SEED}),
    "nola": (NolaConfig, {"r": 3, "alpha": 2.0, "num_bases": 7, "seed": SEED}),
    "pranc": (PrancConfig, {"num_bases": 9, "seed": SEED}),
    "lora_xs": (LoraXsConfig, {"r": 3, "alpha": 8.0}),
    "svft": (SvftConfig, {"off_diagonals": 1}),
    "spectral": (SpectralConfig, {"r": 3, "alpha": 2.0}),
    "hybrid": (
        HybridConfig,
        {"r": 3, "alpha": 2.0, "bases": "normal", "seed": SEED, "lora_r": 2, "lora_alpha": 3.0},
    ),
    "hydralora": (HydraLoraConfig, {"r": 3, "alpha": 8.0, "num_heads": 2}),
}
METHODS |= {m.name: (m.config, {}) for m in CATALOGUE if m.config not in {kind for kind, _ in METHODS.values()}}
MERGEABLE = [name for name in METHODS if name != "hydralora"]
REPRESENTATIVES = ["randlora", "nola", "svft", "hydralora"]
"""One of each sort that the code they share could tell apart: bases that layers share, vectors drawn again from a seed,
vectors of the base weight, and an update that is no ΔW."""
TARGETS = ["a", "b", "c"]


def config(method, **options):
    """A config of a method on the layers of `Net`, or on others by `target_modules`."""
    config_class, own = METHODS[method]
    return config_class(**{"target_modules": list(TARGETS), **own, **options})


def fill(model, seed=4):
    """Random values for everything trained, so that no update is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    return model


def adapted(method, base=None, **options):
    """A model with a filled adapter, in evaluation mode."""
    return fill(peft.get_peft_model(base or Net(), config(method, **options))).eval()


def with_second(method, base=None, second=None, **options):
    """A model with two filled adapters, `default` (active) and `other`, which differ in their trained numbers.

    Args:
        method: Its name.
        base: The base model; `Net` where there is none.
        second: Options of `other` that are not those of `default`.
        **options: Of both configs.
    """
    model = adapted(method, base, **options)
    model.add_adapter("other", config(method, **{**options, **(second or {})}))
    model.set_adapter("other")
    fill(model, seed=5)
    model.set_adapter("default")
    return model.eval()


def layers(model):
    """The adapter layers."""
    return [part for part in model.modules() if isinstance(part, AdapterLayer)]


def trained_names(model):
    """Names of what is trained, without those that PEFT puts before every name."""
    return {name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad}
