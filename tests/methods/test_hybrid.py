"""What is particular to LoRA and RandLoRA in one adapter: both parts in every form, the budget, the inspection."""

import peft
import pytest
import torch
from torch import nn

from kinds import KINDS, adapted_layers
from networks import Net, rows
from randlora import export_lora, fit_rank, fold_once, write_model_card
from randlora.errors import ConfigError, LayerError
from randlora.methods import HybridConfig
from randlora.methods.hybrid import METHOD
from randlora.methods.randlora import RandLoraLayer
from randlora.training.inspection import inspect_adapter

TARGETS = ["a", "b", "c"]


def config(**options):
    return HybridConfig(
        **{"r": 3, "alpha": 2.0, "lora_r": 2, "init_weights": False, "target_modules": TARGETS} | options
    )


def adapted(base=None, **options):
    torch.manual_seed(2)
    return peft.get_peft_model(base or Net(), config(**options))


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("bases", ["structured", "uniform", "ternary"])
@pytest.mark.parametrize("strategy", ["folded", "factored", "auto"])
def test_the_strategies_agree(strategy, bases):
    x = rows().double()
    results = []
    for each in ("reference", strategy):
        model = adapted(Net().double(), strategy=each, bases=bases)
        output = model(x)
        output.square().sum().backward()
        with fold_once(model):
            torch.testing.assert_close(model(x), output)
        results.append([output, *(p.grad for p in trained(model))])
    assert len(results[0]) == 13
    for wanted, got in zip(*results, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strategy", ["reference", "factored"])
def test_both_parts_see_the_same_dropped_input(strategy):
    model = adapted(Net().double(), strategy=strategy, dropout=0.5, target_modules=["b"]).train()
    layer = model.base_model.model.b
    x = torch.randn(4, 29, dtype=torch.float64)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(x, 0.5)
    torch.manual_seed(5)
    update = layer(x) - layer.base_layer(x)
    torch.testing.assert_close(update, dropped @ layer.get_delta_weight("default").T)


def test_the_update_is_the_sum_of_randloras_and_loras():
    model = adapted(num_bases=1)
    for layer in (part for part in model.modules() if isinstance(part, RandLoraLayer)):
        A, B = layer.randlora_lora_A["default"].weight, layer.randlora_lora_B["default"].weight
        delta = layer.get_delta_weight("default")
        # lora_alpha is 2·lora_r where it is not given.
        torch.testing.assert_close(delta, RandLoraLayer._delta_weight(layer, "default") + 2 * B @ A)
        assert torch.linalg.matrix_rank(delta.double(), rtol=1e-5) == 3 + 2


@pytest.mark.parametrize(("out", "inner"), [(29, 13), (11, 29), (12, 12)])
def test_the_rank_is_full(out, inner):
    model = adapted(nn.Sequential(nn.Linear(inner, out).double()), target_modules=["0"])
    assert torch.linalg.matrix_rank(model.base_model.model[0].get_delta_weight("default")) == min(out, inner)


def test_the_rank_for_a_budget():
    def count(config):
        return sum(p.numel() for p in trained(peft.get_peft_model(Net(), config)))

    found = fit_rank(config(), Net(), lora_rank=5)
    assert isinstance(found, HybridConfig)
    assert (found.lora_r, found.lora_alpha) == (2, 4.0)
    budget = count(peft.LoraConfig(r=5, target_modules=TARGETS))
    distances = {r: abs(count(config(r=r)) - budget) for r in range(1, 12)}
    assert distances[found.r] == min(distances.values())


def test_patterns_apply_to_the_full_rank_part():
    model = adapted(rank_pattern={"a": 5}, alpha_pattern={"b": 4.0})
    layers = model.base_model.model
    assert (layers.a.r["default"], layers.b.r["default"]) == (5, 3)
    assert layers.a.randlora_lora_A["default"].weight.shape == (2, 13)
    assert layers.b.scaling["default"] == 2 * adapted().base_model.model.b.scaling["default"]


def test_an_adapter_on_disk_is_described_whole(tmp_path):
    model = adapted(num_bases=2)
    model.save_pretrained(tmp_path)
    found = inspect_adapter(tmp_path)
    assert found.title == "RANDLORA_HYBRID, bases structured"
    assert found.trained == sum(p.numel() for p in trained(model))
    assert [layer.rank for layer in found.layers] == [2 * 3 + 2] * 3


def test_of_a_stack_every_matrix_has_both_parts_of_the_rank(tmp_path):
    kind = KINDS["experts"]
    model = peft.get_peft_model(kind.plain().double(), config(r=2, num_bases=1, lora_r=1, **kind.options))
    model.save_pretrained(tmp_path)
    ranks = {
        tuple(torch.linalg.matrix_rank(layer.delta_weight("default")).tolist())
        for layer in adapted_layers(model).values()
    }
    assert ranks == {(3, 3, 3), (3,)}
    assert [layer.rank for layer in inspect_adapter(tmp_path).layers] == [3, 3, 3]


@pytest.mark.parametrize(("options", "rank"), [({}, 11), ({"num_bases": 2}, 8), ({"rank_fraction": 0.4}, 6)])
def test_the_catalogue_knows_the_rank_of_both_parts(options, rank):
    layer = adapted(Net().double(), **options).base_model.model.c
    assert METHOD.rank(config(**options), 11, 11) == rank
    assert torch.linalg.matrix_rank(layer.get_delta_weight("default")) == rank


def test_its_card_has_both_parts(tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    card = write_model_card(model, tmp_path).read_text(encoding="utf-8")
    assert "LoRA and RandLoRA together" in card
    assert "| update | ΔW = s·B·A + g · Σⱼ Bⱼ Λⱼ A Γⱼ, s = lora_alpha/lora_r, g = " in card
    assert "| lora_r | 2 |" in card


def test_it_exports_as_a_lora(tmp_path):
    model = adapted(num_bases=1)
    assert export_lora(model, 5, tmp_path).mean_energy > 1 - 1e-5
    torch.testing.assert_close(
        peft.PeftModel.from_pretrained(Net(), tmp_path)(rows()), model(rows()), rtol=1e-4, atol=1e-4
    )


def test_what_it_does_not_do_is_said_in_one_line():
    model = adapted()
    model.add_adapter("second", config())
    with pytest.raises(ConfigError, match="adapters: expected RandLoRA's, to sum them, got hybrid ones"):
        model.base_model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "sum")
    with pytest.raises(LayerError, match=r"'0': expected Linear or Conv1D or .*, got ConvTranspose2d"):
        peft.get_peft_model(nn.Sequential(nn.ConvTranspose2d(3, 4, 2)), config(target_modules=["0"]))
