"""Make PEFT know the adapter: a PEFT type of its own, its config and its tuner.

PEFT keeps its types in an enum and offers no way to add one, so the member is added here. Done once, at import.
"""

from peft import PeftType
from peft.utils import register_peft_method

from randlora.adapter.tuner import RandLoraTuner
from randlora.config import PEFT_TYPE, RandLoraConfig


def register() -> None:
    """Register `RandLoraConfig` and `RandLoraTuner` with PEFT; doing it again changes nothing."""
    if PEFT_TYPE in PeftType.__members__:
        return
    member = str.__new__(PeftType, PEFT_TYPE)
    member._name_ = PEFT_TYPE
    member._value_ = PEFT_TYPE
    PeftType._member_map_[PEFT_TYPE] = member
    PeftType._value2member_map_[PEFT_TYPE] = member
    PeftType._member_names_.append(PEFT_TYPE)
    type.__setattr__(PeftType, PEFT_TYPE, member)  # the enum's own __setattr__ refuses new members
    register_peft_method(
        name=PEFT_TYPE.lower(),
        config_cls=RandLoraConfig,
        model_cls=RandLoraTuner,
        prefix=RandLoraTuner.prefix,
    )
