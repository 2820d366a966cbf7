"""Make PEFT know an adapter: a PEFT type of its own, its config and its tuner.

PEFT keeps its types in an enum and offers no way to add one, so the member is added here. Done once, at import.
"""

from peft import PeftType
from peft.utils import register_peft_method

from randlora.adapter.base_tuner import AdapterTuner
from randlora.adapter.tuner import RandLoraTuner
from randlora.adapter_config import AdapterConfig
from randlora.config import RandLoraConfig


def register() -> None:
    """Register `RandLoraConfig` and `RandLoraTuner` with PEFT; doing it again changes nothing."""
    register_method(RandLoraConfig, RandLoraTuner)


def register_method(config_class: type[AdapterConfig], tuner_class: type[AdapterTuner]) -> None:
    """Register a method with PEFT under its config's `type_name`; doing it again changes nothing.

    Args:
        config_class: Its configuration.
        tuner_class: Its tuner, with the same prefix.
    """
    name = config_class.type_name
    if name in PeftType.__members__:
        return
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    PeftType._member_names_.append(name)
    type.__setattr__(PeftType, name, member)  # the enum's own __setattr__ refuses new members
    register_peft_method(name=name.lower(), config_cls=config_class, model_cls=tuner_class, prefix=config_class.prefix)
