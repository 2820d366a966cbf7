"""The adapter: modules that wrap a base layer, the PEFT tuner, checkpoints and conversion."""

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.base_tuner import AdapterTuner
from randlora.adapter.budget import fit_rank
from randlora.adapter.card import write_model_card
from randlora.adapter.checkpoint import load_adapter
from randlora.adapter.export import export_lora
from randlora.adapter.fold_once import fold_once
from randlora.adapter.layer import RandLoraLayer
from randlora.adapter.linear import RandLoraLinear
from randlora.adapter.refine import merge_lora, refine_lora
from randlora.adapter.registration import register, register_method
from randlora.adapter.swap import swap_adapter
from randlora.adapter.tuner import RandLoraTuner

__all__ = [
    "AdapterLayer",
    "AdapterTuner",
    "RandLoraLayer",
    "RandLoraLinear",
    "RandLoraTuner",
    "export_lora",
    "fit_rank",
    "fold_once",
    "load_adapter",
    "merge_lora",
    "refine_lora",
    "register",
    "register_method",
    "swap_adapter",
    "write_model_card",
]
