"""RandLoRA: its config, its layer, its tuner, and what is done with its adapters alone."""

from randlora.methods.randlora.config import FAMILIES, PEFT_TYPE, RandLoraConfig, default_alpha
from randlora.methods.randlora.fold_once import fold_once
from randlora.methods.randlora.layer import RandLoraLayer
from randlora.methods.randlora.tuner import RandLoraTuner

__all__ = [
    "FAMILIES",
    "PEFT_TYPE",
    "RandLoraConfig",
    "RandLoraLayer",
    "RandLoraTuner",
    "default_alpha",
    "fold_once",
]
