"""RandLoRA, and methods that its paper compares with, or defines beside its own, and PEFT does not have.

Each file or folder holds one: its config, its layer's arithmetic over `randlora.adapter`, and its record in the
catalogue.

Example:
    >>> from randlora.methods import CATALOGUE
    >>> for method in CATALOGUE[2:5]:
    ...     print(f"{method.name}: {method.equation}; {method.trained(method.config(), 64, 48)} numbers on 64 x 48")
    lora_xs: (α/r)·U_r·R·Σ_r·V_rᵀ of W₀'s singular vectors; 256 numbers on 64 x 48
    svft: U·M·Vᵀ, M sparse; 234 numbers on 64 x 48
    hydralora: y += (α/r)·Σ_h ω_h(x)·B_h·A·x; 1408 numbers on 64 x 48
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
from randlora.methods.catalogue import Method, PromptMethod
from randlora.methods.hybrid import HybridConfig
from randlora.methods.hydralora import HydraLoraConfig
from randlora.methods.kradapter import KRAdapterConfig
from randlora.methods.lora_xs import LoraXsConfig
from randlora.methods.nola import NolaConfig
from randlora.methods.pranc import PrancConfig
from randlora.methods.prompts import cocoop, coop, maple, promptsrc
from randlora.methods.prompts.cocoop import CoCoOpConfig
from randlora.methods.prompts.coop import CoOpConfig
from randlora.methods.prompts.maple import MapleConfig
from randlora.methods.prompts.promptsrc import PromptSRCConfig
from randlora.methods.randlora.method import HALF as RANDLORA_HALF
from randlora.methods.randlora.method import METHOD as RANDLORA
from randlora.methods.randlora_a import RandLoraAConfig
from randlora.methods.spectral import SpectralConfig
from randlora.methods.svft import SvftConfig

__all__ = [
    "CATALOGUE",
    "PROMPTS",
    "CoCoOpConfig",
    "CoOpConfig",
    "HybridConfig",
    "HydraLoraConfig",
    "KRAdapterConfig",
    "LoraXsConfig",
    "MapleConfig",
    "NolaConfig",
    "PrancConfig",
    "PromptSRCConfig",
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
"""Every method of this package that adapts layers, in the order of the table of methods."""

PROMPTS = (coop.METHOD, cocoop.METHOD, maple.METHOD, promptsrc.METHOD, maple.DEPT)
"""Every method of this package that trains inputs of CLIP's towers."""


def register_methods() -> None:
    """Register the methods with PEFT; doing it again changes nothing.

    Importing `randlora` does it.

    Example:
        >>> import peft
        >>> register_methods()
        >>> peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType["RANDLORA_SVFT"]].__name__
        'SvftConfig'
    """
    method: Method | PromptMethod
    for method in (*CATALOGUE, *PROMPTS):
        register_method(method.config, method.tuner)
