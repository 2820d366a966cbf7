"""The rank for a budget, against counting what PEFT makes trainable."""

from dataclasses import replace

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinds import KINDS
from networks import Net
from randlora import RandLoraConfig, fit_rank
from randlora.errors import ConfigError
from randlora.methods import CATALOGUE
from randlora.methods.budget import count_trained

TARGETS = ["a", "b", "c"]


def _trained(config):
    return sum(p.numel() for p in peft.get_peft_model(Net(), config).parameters() if p.requires_grad)


@settings(max_examples=25, deadline=None)
@given(r=st.integers(1, 16), num_bases=st.none() | st.integers(1, 5), fraction=st.sampled_from([1.0, 0.5, 0.3]))
def test_the_count_is_what_is_trained(r, num_bases, fraction):
    config = RandLoraConfig(r=r, num_bases=num_bases, rank_fraction=fraction, target_modules=TARGETS)
    shapes = [(layer.out_features, layer.in_features) for layer in (Net().a, Net().b, Net().c)]
    assert sum(config.trained_numbers(shape, r) for shape in shapes) == _trained(config)


@pytest.mark.parametrize("budget", [1, 60, 150, 300, 10_000])
def test_no_other_rank_is_nearer(budget):
    config = RandLoraConfig(target_modules=TARGETS)
    found = fit_rank(config, Net(), parameters=budget)
    distances = {r: abs(_trained(RandLoraConfig(r=r, target_modules=TARGETS)) - budget) for r in range(1, 14)}
    assert distances[found.r] == min(distances.values())
    assert config.r == 16


@pytest.mark.parametrize(("within", "r"), [(0.0, 11), (0.1, 11), (0.15, 12), (0.5, 12)])
def test_within_a_share_of_the_budget_blocks_are_even(within, r):
    net = torch.nn.Sequential(torch.nn.Linear(96, 96), torch.nn.Linear(96, 48))
    wanted = sum(RandLoraConfig(r=11).trained_numbers(shape, 11) for shape in ((96, 96), (48, 96)))
    found = fit_rank(RandLoraConfig(target_modules=["0", "1"]), net, parameters=wanted, within=within)
    assert found.r == r


def test_as_many_as_a_lora():
    found = fit_rank(RandLoraConfig(target_modules=TARGETS), Net(), lora_rank=2)
    lora = _trained(peft.LoraConfig(r=2, target_modules=TARGETS))
    assert found == fit_rank(RandLoraConfig(target_modules=TARGETS), Net(), parameters=lora)


def test_what_is_asked_stays_and_a_default_alpha_follows_the_rank():
    config = RandLoraConfig(target_modules="all-linear", bases="peft")
    found = fit_rank(config, Net(), lora_rank=2)
    assert found.target_modules == config.target_modules == "all-linear"
    assert found.alpha == RandLoraConfig(bases="peft", r=found.r).alpha
    assert fit_rank(RandLoraConfig(target_modules=TARGETS, alpha=3.0), Net(), lora_rank=2).alpha == 3.0


@pytest.mark.parametrize("budget", [1, 100, 150, 300])
def test_layers_with_a_rank_of_their_own_keep_it(budget):
    config = RandLoraConfig(target_modules=TARGETS, rank_pattern={"b": 2})
    counts = {r: _trained(replace(config, r=r)) for r in range(1, 14)}
    assert {r: count_trained(replace(config, r=r), Net()) for r in counts} == counts
    found = fit_rank(config, Net(), parameters=budget)
    assert abs(counts[found.r] - budget) == min(abs(count - budget) for count in counts.values())


def test_ranks_by_the_name_of_an_attention_module_count():
    kind = KINDS["attention"]
    config = RandLoraConfig(r=4, rank_pattern={"packed": 1, "apart": 2}, **kind.options)
    model = peft.get_peft_model(kind.plain(), config)
    assert count_trained(config, kind.plain()) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_every_matrix_of_a_stack_counts():
    kind = KINDS["experts"]
    found = fit_rank(RandLoraConfig(r=1, **kind.options), kind.plain(), parameters=100)
    model = peft.get_peft_model(kind.plain(), RandLoraConfig(r=found.r, **kind.options))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == pytest.approx(100, abs=20)


@pytest.mark.parametrize("method", CATALOGUE, ids=lambda method: method.name)
def test_every_method_of_the_catalogue(method):
    config = method.config(target_modules=TARGETS, **method.start)
    if method.name in ("nola", "pranc", "svft", "kradapter"):  # whose budget is another number
        with pytest.raises(ConfigError, match="whose r sets how many numbers are trained, got"):
            fit_rank(config, Net(), lora_rank=2)
        return
    found = fit_rank(config, Net(), lora_rank=2)
    budget = _trained(peft.LoraConfig(r=2, target_modules=TARGETS))
    others = [replace(found, r=found.r + step) for step in (-1, 1) if 1 <= found.r + step <= 8]
    assert all(abs(_trained(found) - budget) <= abs(_trained(other) - budget) for other in others)


@pytest.mark.parametrize(
    "method", [m for m in CATALOGUE if m.name in ("hydralora", "randlora", "randlora_a", "hybrid")]
)
@pytest.mark.parametrize("budget", [300, 3000])
def test_a_narrow_layer_does_not_bound_the_rank_of_the_others(method, budget):
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 2))
    config = method.config(target_modules=["0", "1"], **method.start)
    found = fit_rank(config, net, parameters=budget)
    counts = [count_trained(replace(config, r=r), net) for r in range(1, 65)]
    assert abs(count_trained(found, net) - budget) == min(abs(count - budget) for count in counts)


@pytest.mark.parametrize(
    ("options", "budget", "message"),
    [
        ({}, {}, "one of parameters and lora_rank"),
        ({}, {"parameters": 5, "lora_rank": 2}, "one of parameters and lora_rank"),
        ({}, {"lora_rank": 0}, "lora_rank: expected an integer of 1 or more, got 0"),
        ({"target_modules": ["nothing"]}, {"lora_rank": 2}, "target_modules: expected names of layers of the model"),
        ({"target_modules": None}, {"lora_rank": 2}, "target_modules"),
    ],
)
def test_bad_input(options, budget, message):
    with pytest.raises(ConfigError, match=message):
        fit_rank(RandLoraConfig(**{"target_modules": TARGETS} | options), Net(), **budget)
