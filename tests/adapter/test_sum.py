"""add_weighted_adapter: the exact sum, saved and loaded, and what cannot be summed."""

import peft
import pytest
import torch

from networks import FAMILIES, Net, random_config, rows
from randlora.errors import ConfigError

TARGETS = ["a", "b", "c"]


def _model(second=None, **common):
    common = {"target_modules": TARGETS, **common}
    model = peft.get_peft_model(Net(), random_config(**common), "one")
    model.add_adapter("two", random_config(**{**common, **(second or {})}))
    return model.double()


@pytest.mark.parametrize("bases", FAMILIES)
def test_the_sum_is_exact(bases, tmp_path):
    model = _model(bases=bases, second={"alpha": 3.0})
    model.base_model.add_weighted_adapter(["one", "two"], [0.25, -2.0], "sum")
    layer = model.base_model.model.b
    expected = 0.25 * layer.get_delta_weight("one") - 2.0 * layer.get_delta_weight("two")
    torch.testing.assert_close(layer.get_delta_weight("sum"), expected, rtol=1e-6, atol=1e-8)
    model.set_adapter("sum")
    outputs = model(rows().double())
    base = Net().double()
    with torch.no_grad():
        for name in TARGETS:
            one, two = (getattr(model.base_model.model, name).get_delta_weight(n) for n in ("one", "two"))
            getattr(base, name).weight += 0.25 * one - 2.0 * two
    torch.testing.assert_close(outputs, base(rows().double()), rtol=1e-6, atol=1e-8)
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    loaded = peft.PeftModel.from_pretrained(Net().double(), tmp_path / "sum")
    torch.testing.assert_close(loaded(rows().double()), outputs, rtol=1e-6, atol=1e-8)


def test_a_sum_of_sums():
    model = _model()
    model.base_model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "sum")
    model.base_model.add_weighted_adapter(["sum", "two"], [2.0, 1], "more")
    layer = model.base_model.model.a
    expected = 2 * layer.get_delta_weight("one") + 3 * layer.get_delta_weight("two")
    torch.testing.assert_close(layer.get_delta_weight("more"), expected, rtol=1e-6, atol=1e-8)
    assert not layer.randlora_gamma["more"].requires_grad


@pytest.mark.parametrize(
    ("second", "arguments", "message"),
    [
        ({"seed": 5}, (["one", "two"], [1, 1], "sum"), "adapter 'two': expected seed as of 'one', 0"),
        ({"r": 2}, (["one", "two"], [1, 1], "sum"), "expected r as of 'one'"),
        (
            {"bases": "uniform"},
            (["one", "two"], [1, 1], "sum"),
            "bases as of 'one', 'structured', got 'uniform'",
        ),
        ({"target_parameters": ["c.weight"]}, (["one", "two"], [1, 1], "sum"), "target_p.*weight"),
        ({"modules_to_save": ["c"]}, (["one", "two"], [1, 1], "sum"), r"'two': expected nothing trained but.*\['c'\]"),
        ({}, (["one", "three"], [1, 1], "sum"), "adapters: expected one or more of one, two, got 'three'"),
        ({}, (["one", "two"], [1], "sum"), "1 for 2 adapters"),
        ({}, (["one", "two"], [1, float("nan")], "sum"), "weights: expected finite numbers, got nan"),
        ({}, (["one", "two"], [1, 1], "two"), "a name that is not taken"),
        ({}, ([], [], "sum"), "one or more adapters"),
        ({}, (["one"], [1], "one.half"), "a name without dots"),
    ],
)
def test_what_cannot_be_summed(second, arguments, message):
    model = _model(target_modules=["a", "b"], bases="structured", second={"bases": "structured", **second})
    with pytest.raises(ConfigError, match=message):
        model.base_model.add_weighted_adapter(*arguments)
    assert set(model.peft_config) == {"one", "two"}
