"""Methods that the RandLoRA paper compares with, or defines beside its own, and PEFT does not have.

Each file holds one: its config, and its layer's arithmetic over `randlora.adapter`.
"""

from randlora.adapter import register_method
from randlora.methods.hybrid import HybridConfig, HybridTuner
from randlora.methods.hydralora import HydraLoraConfig, HydraLoraTuner
from randlora.methods.lora_xs import LoraXsConfig, LoraXsTuner
from randlora.methods.nola import NolaConfig, NolaTuner
from randlora.methods.pranc import PrancConfig, PrancTuner
from randlora.methods.randlora_a import RandLoraAConfig, RandLoraATuner
from randlora.methods.spectral import SpectralConfig, SpectralTuner
from randlora.methods.svft import SvftConfig, SvftTuner

__all__ = [
    "HybridConfig",
    "HydraLoraConfig",
    "LoraXsConfig",
    "NolaConfig",
    "PrancConfig",
    "RandLoraAConfig",
    "SpectralConfig",
    "SvftConfig",
    "register_methods",
]


def register_methods() -> None:
    """Register the methods with PEFT; doing it again changes nothing."""
    register_method(HybridConfig, HybridTuner)
    register_method(HydraLoraConfig, HydraLoraTuner)
    register_method(LoraXsConfig, LoraXsTuner)
    register_method(NolaConfig, NolaTuner)
    register_method(PrancConfig, PrancTuner)
    register_method(RandLoraAConfig, RandLoraATuner)
    register_method(SpectralConfig, SpectralTuner)
    register_method(SvftConfig, SvftTuner)
