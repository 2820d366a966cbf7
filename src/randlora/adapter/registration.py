"""Make PEFT know an adapter: a PEFT type of its own, its config and its tuner.

PEFT keeps its types in an enum and offers no way to add one, so the member is added here. Nor has it a way to say how
the names in a checkpoint become those in a model for transformers' own `load_adapter`. Done once, at import.
"""

import re
from functools import wraps
from typing import Any

from peft import PeftModel, PeftType, helpers
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method, transformers_weight_conversion
from torch import Tensor
from transformers.core_model_loading import WeightRenaming

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter_config import AdapterConfig, OwnConfig


def register_method(config_class: type[OwnConfig], tuner_class: type[BaseTuner]) -> None:
    """Register a method with PEFT under its config's `type_name`; doing it again changes nothing.

    Args:
        config_class: Its configuration.
        tuner_class: Its tuner, with the same prefix.
    """
    name = config_class.type_name
    if name in PeftType.__members__:
        return
    helpers.LoraLayer = (LoraLayer, AdapterLayer)  # whose scaling `rescale_adapter_scale` changes
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    PeftType._member_names_.append(name)
    type.__setattr__(PeftType, name, member)  # the enum's own __setattr__ refuses new members
    register_peft_method(name=name.lower(), config_cls=config_class, model_cls=tuner_class, prefix=config_class.prefix)
    _name_trained_tensors()


def _name_trained_tensors() -> None:
    """Where neither transformers' `load_adapter` nor PEFT's offloading asks the tuner: append a name's last part."""
    weight_mapping = transformers_weight_conversion.build_peft_weight_mapping
    update_offload = PeftModel._update_offload
    if hasattr(weight_mapping, "__wrapped__"):
        return

    @wraps(weight_mapping)
    def build_peft_weight_mapping(conversions: Any, adapter_name: str, peft_config: Any = None) -> list[Any]:
        mapping: list[Any] = weight_mapping(conversions, adapter_name, peft_config=peft_config)
        if isinstance(peft_config, AdapterConfig):
            name = rf"\.({_trained_names(peft_config)})\.{re.escape(adapter_name)}$"
            mapping.append(WeightRenaming(name, rf".\1.{adapter_name}.weight"))
        return mapping

    @wraps(update_offload)
    def _update_offload(model: PeftModel, offload_index: Any, weights: dict[str, Tensor]) -> Any:
        config = next(iter(model.peft_config.values()))  # PEFT offloads with one adapter only
        if isinstance(config, AdapterConfig):
            pattern = rf"\.({_trained_names(config)})$"
            weights = {re.sub(pattern, r".\1.weight", name): tensor for name, tensor in weights.items()}
        return update_offload(model, offload_index, weights)

    transformers_weight_conversion.build_peft_weight_mapping = build_peft_weight_mapping
    PeftModel._update_offload = _update_offload


def _trained_names(config: AdapterConfig) -> str:
    return "|".join(PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type].tuner_layer_cls.adapter_layer_names)
