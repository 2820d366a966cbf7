"""add_weighted_adapter: the exact sum, saved and loaded, and what cannot be summed."""

import peft
import pytest
import torch
from torch import nn

from every_method import METHODS, with_second
from networks import FAMILIES, Net, random_config, rows
from randlora.errors import ConfigError
from randlora.methods.randlora import RandLoraLayer
from randlora.training.inspection import inspect_adapter

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
    assert not layer.randlora_gamma["more"].weight.requires_grad


def test_a_sum_is_described_with_the_bases_and_the_rank_that_it_has(tmp_path):
    model = _model(r=3, num_bases=2)
    model.base_model.add_weighted_adapter(["one", "two"], [1.0, -2.0], "sum")
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    described = inspect_adapter(tmp_path / "sum").layers
    ranks = [torch.linalg.matrix_rank(getattr(model, name).get_delta_weight("sum")) for name in TARGETS]
    assert [(layer.num_bases, layer.rank) for layer in described] == [(2, rank) for rank in ranks] == [(2, 6)] * 3


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
        (
            {"target_modules": ["b", "c"], "rank_pattern": {"b": 3}},
            (["one", "two"], [1, 1], "sum"),
            "layer 'b', 4, got 3",
        ),
        ({"num_bases": 2}, (["one", "two"], [1, 1], "sum"), "num_bases as of 'one', None, got 2"),
        ({"rank_fraction": 0.5}, (["one", "two"], [1, 1], "sum"), "rank_fraction as of 'one'"),
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


@pytest.mark.parametrize("combination_type", ["svd", "cat", "ties", "magnitude_prune", "Linear"])
def test_linear_is_the_only_combination(combination_type):
    model = _model()
    with pytest.raises(
        ConfigError, match=f"combination_type: expected 'linear', the exact sum, got '{combination_type}'"
    ):
        model.add_weighted_adapter(["one", "two"], [1, 1], "sum", combination_type=combination_type)
    model.add_weighted_adapter(["one", "two"], [1, 1], "sum", combination_type="linear")
    assert set(model.peft_config) == {"one", "two", "sum"}


class Mixed(nn.Module):
    """Linear layers, an embedding, a convolution, attention and a stack of matrices."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.first, self.last = nn.Embedding(9, 6), nn.Linear(6, 10), nn.Linear(10, 6)
        self.conv, self.attention = nn.Conv1d(6, 6, 3, padding=1), nn.MultiheadAttention(6, 2, batch_first=True)
        self.inner = nn.ModuleDict({"first": nn.Linear(6, 6), "stack": nn.ParameterDict()})
        self.inner["stack"].up = nn.Parameter(torch.randn(2, 6, 6))

    def forward(self, ids):
        x = self.last(torch.tanh(self.first(self.table(ids))))
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.inner["first"](x)


IDS = torch.randint(0, 9, (2, 5), generator=torch.Generator().manual_seed(3))


def deltas(model, name):
    found = {}
    for place, layer in model.base_model.model.named_modules():
        if isinstance(layer, RandLoraLayer):
            found[place] = layer.get_delta_weight(name) if name in layer.scaling else 0
    return found


@pytest.mark.parametrize("bases", ["structured", "uniform", "ternary"])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"target_modules": ["last"]}, {"target_modules": ["table"]}),
        ({"target_modules": ["first", "last"]}, {"target_modules": ["inner.first", "last", "conv"], "alpha": 5.0}),
        ({"target_modules": ["last"], "r": 2}, {"target_modules": ["inner.first"], "r": 5}),
        (
            {"target_modules": ["last", "conv"], "r": 2, "rank_pattern": {"conv": 3}},
            {"target_modules": r"conv|inner\.first", "r": 3, "exclude_modules": ["table"]},
        ),
        ({"target_modules": ["attention"], "r": 3}, {"target_modules": ["attention", "first"], "r": 3}),
        ({"target_modules": None, "target_parameters": ["stack.up"]}, {"target_modules": "all-linear", "r": 2}),
        ({"target_modules": ["last"], "terms": 3}, {"target_modules": ["first"], "r": 3, "terms": 2}),
    ],
)
def test_the_sum_is_on_all_layers_with_the_rank_of_each(bases, one, two, tmp_path):
    if two["target_modules"] == "all-linear":
        two = {**two, "exclude_modules": ["out_proj"]}
    model = peft.get_peft_model(Mixed(), random_config(bases=bases, **one), "one")
    model.add_adapter("two", random_config(bases=bases, **two))
    model = model.double().eval()
    model.add_weighted_adapter(["one", "two", "one"], [0.5, -2.0, 1.5], "sum")
    first, second, found = (deltas(model, name) for name in ("one", "two", "sum"))
    assert set(found) == set(first)
    for place, delta in found.items():
        expected = 2.0 * first[place] - 2.0 * second[place]
        torch.testing.assert_close(delta, expected, rtol=1e-6, atol=1e-8)
        assert delta.abs().max() > 1e-3
    model.set_adapter("sum")
    outputs = model(IDS)
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    loaded = peft.PeftModel.from_pretrained(Mixed().double(), tmp_path / "sum").eval()
    torch.testing.assert_close(loaded(IDS), outputs, rtol=1e-6, atol=1e-8)


def test_a_sum_with_a_layer_whose_name_ends_as_another_has_the_ranks_of_both():
    model = peft.get_peft_model(Mixed(), random_config(target_modules=r"first", r=2), "one")
    model.add_adapter("two", random_config(target_modules=r"inner\.first", r=5))
    model.add_weighted_adapter(["one", "two"], [1, 1], "sum")
    model.add_weighted_adapter(["sum", "two"], [1, 2], "more")
    base = model.base_model.model
    assert (base.first.r["more"], base.inner["first"].r["more"]) == (2, 5)
    torch.testing.assert_close(base.first.get_delta_weight("more"), base.first.get_delta_weight("one"))
    expected = 3 * base.inner["first"].get_delta_weight("two")
    torch.testing.assert_close(base.inner["first"].get_delta_weight("more"), expected)


def test_a_draw_of_pefts_for_other_layers_has_no_sum():
    options = {"bases": "peft", "target_modules": ["a"]}
    model = peft.get_peft_model(Net(), random_config(**options), "one")
    model.add_adapter("two", random_config(**{**options, "target_modules": ["b"]}))
    model.add_adapter("three", random_config(**options, r=3))
    for other, message in (("two", "peft_draw as of 'one'"), ("three", "as of 'one'")):
        with pytest.raises(ConfigError, match=message) as caught:
            model.add_weighted_adapter(["one", other], [1, 1], "sum")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "method", [name for name in METHODS if not name.startswith("randlora") or name == "randlora_a"]
)
def test_other_methods_have_none_and_say_so(method):
    model = with_second(method)
    with pytest.raises(ConfigError, match="merge") as caught:
        model.add_weighted_adapter(["default", "other"], [1, 1], "sum", combination_type="linear")
    assert "\n" not in str(caught.value)
    assert set(model.peft_config) == {"default", "other"}
