"""RandLoRA, and methods that its paper compares with, or defines beside its own, and PEFT does not have.

Each file or folder holds one: its config, its layer's arithmetic over `randlora.adapter`, and its record in the
catalogue.
"""

from randlora.adapter import register_method
from randlora.methods import (
    hybrid,
    hydralora,
    kradapter,
    lora_xs,
    nola,
    pranc,
    randlora_a,
    spectral,
    svft,
)
from randlora.methods.hybrid import HybridConfig
from randlora.methods.hydralora import HydraLoraConfig
from randlora.methods.kradapter import KRAdapterConfig
from randlora.methods.lora_xs import LoraXsConfig
from randlora.methods.nola import NolaConfig
from randlora.methods.pranc import PrancConfig
from randlora.methods.randlora.method import HALF as RANDLORA_HALF
from randlora.methods.randlora.method import METHOD as RANDLORA
from randlora.methods.randlora_a import RandLoraAConfig
from randlora.methods.spectral import SpectralConfig
from randlora.methods.svft import SvftConfig

__all__ = [
    "CATALOGUE",
    "HybridConfig",
    "HydraLoraConfig",
    "KRAdapterConfig",
    "LoraXsConfig",
    "NolaConfig",
    "PrancConfig",
    "RandLoraAConfig",
    "SpectralConfig",
    "SvftConfig",
    "register_methods",
]

CATALOGUE = (
    nola.METHOD,
    pranc.METHOD,
    lora_xs.METHOD,
    svft.METHOD,
    hydralora.METHOD,
    kradapter.METHOD,
    RANDLORA,
    randlora_a.METHOD,
    RANDLORA_HALF,
    spectral.METHOD,
    hybrid.METHOD,
)
"""Every method of this package, in the order of the table of methods."""


def register_methods() -> None:
    """Register the methods with PEFT; doing it again changes nothing."""
    for method in CATALOGUE:
        register_method(method.config, method.tuner)
