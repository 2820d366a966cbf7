"""A config given to PEFT can be used again: what an adapter fixes belongs to the adapter's own copy."""

import copy
import json
from dataclasses import replace

import peft
import pytest
import torch
from torch import nn

from every_method import METHODS, adapted, config
from networks import Net, gpt2, llama, rows

FILLED = {"base_shapes", "bases_version", "bases_fingerprint", "peft_draw", "base_fingerprint", "decomposition"}


@pytest.mark.parametrize("targets", [["a", "b"], "all-linear", r"a|b"])
def test_a_config_is_as_new_after_its_use(method, targets):
    used = config(method, target_modules=targets)
    fresh = copy.deepcopy(used)
    model = peft.get_peft_model(Net(), used)
    assert used == fresh
    model.add_adapter("other", used)
    peft.inject_adapter_in_model(used, Net())
    assert used == fresh
    assert model.peft_config["default"] is not model.peft_config["other"]


def test_one_config_for_models_of_other_shapes_and_layers(method):
    used = config(method, target_modules="all-linear")
    wide = nn.Sequential(nn.Linear(13, 200), nn.Linear(200, 4))
    first, second = peft.get_peft_model(Net(), used), peft.get_peft_model(wide, used)
    assert set(first.peft_config["default"].target_modules) == {"a", "b", "c"}
    assert set(second.peft_config["default"].target_modules) == {"0", "1"}
    shapes = first.peft_config["default"].base_shapes
    assert shapes == {"a": "29x13", "b": "11x29", "c": "11x11"}


@pytest.mark.parametrize("method", [name for name, (kind, _) in METHODS.items() if hasattr(kind, "seed")])
def test_a_changed_copy_is_a_config_of_its_own(method):
    used = config(method)
    peft.get_peft_model(Net(), used)
    changed = replace(used, seed=11)
    model = peft.get_peft_model(Net(), changed)
    assert model.peft_config["default"].seed == 11


@pytest.mark.parametrize("options", [{"bases": "peft"}, {"bases": "ternary", "sparsity": "sqrt"}])
def test_a_seed_can_be_changed_whatever_the_bases(options):
    used = config("randlora", **{"alpha": None, **options})
    fresh = copy.deepcopy(used)
    peft.get_peft_model(Net(), used)
    assert used == fresh
    peft.get_peft_model(llama(), replace(used, seed=2, target_modules=["q_proj"]))


def test_the_architectures_own_targets_are_not_kept(method):
    used = config(method, target_modules=None)
    first, second = peft.get_peft_model(llama(), used), peft.get_peft_model(gpt2(), used)
    assert used.target_modules is None
    assert set(first.peft_config["default"].target_modules) == {"q_proj", "v_proj"}
    assert set(second.peft_config["default"].target_modules) == {"c_attn"}


def test_the_adapter_saves_what_it_fixed(any_method, tmp_path):
    model = adapted(any_method)
    own = model.peft_config["default"]
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    filled = {name for name in FILLED if hasattr(own, name)} - {"peft_draw"}
    assert all(saved[name] == getattr(own, name) is not None for name in filled)
    assert torch.equal(peft.PeftModel.from_pretrained(Net(), tmp_path)(rows()), model(rows()))
