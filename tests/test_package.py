"""The package as a whole: lean to import, registered once."""

import peft

import randlora
from randlora.adapter import register
from randlora.config import PEFT_TYPE


def test_import_is_lean(in_new_process):
    heavy = ("matplotlib", "datasets", "trl", "triton", "sklearn", "jsonargparse", "bitsandbytes")
    assert in_new_process(f"import sys, randlora; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_registering_again_changes_nothing():
    before = list(peft.PeftType)
    register()
    assert list(peft.PeftType) == before
    assert peft.PeftType[PEFT_TYPE] is peft.PeftType(PEFT_TYPE)
    assert getattr(peft.PeftType, PEFT_TYPE) == PEFT_TYPE


def test_pefts_own_randlora_is_untouched():
    assert peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.RANDLORA] is peft.RandLoraConfig
    assert peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType[PEFT_TYPE]] is randlora.RandLoraConfig


def test_public_names_exist():
    assert all(hasattr(randlora, name) for name in randlora.__all__)
