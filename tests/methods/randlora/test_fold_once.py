"""fold_once: how often it folds, that it changes nothing, and that it can be left."""

import copy
import pickle
from collections import Counter

import peft
import pytest
import torch
from torch.func import functional_call

from networks import Net, random_config, rows
from randlora import fold_once
from randlora.methods.randlora import layer as linear

LAYERS = 3


@pytest.fixture
def folds(monkeypatch):
    """Counts the weights that are folded to be kept."""
    counter = Counter()

    def counted(*arguments):
        counter["folds"] += 1
        return original(*arguments)

    original = linear.folded_weight
    monkeypatch.setattr(linear, "folded_weight", counted)
    return counter


def _net(**options):
    return peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"], **options))


@pytest.mark.parametrize("bases", ["structured", "uniform"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_folds_once_and_can_be_left(folds, bases, mode):
    model = _net(bases=bases, strategy="folded").eval()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with mode():
        before = model(rows())
        with fold_once(model) as same:
            inside = [same(rows()) for _ in range(5)]
        after = model(rows())
    assert same is model
    assert folds["folds"] == LAYERS
    assert all(torch.equal(output, before) for output in (*inside, after))
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(getattr(module, "kept", None) is None for module in model.modules())


@pytest.mark.parametrize("fused", [False, True])
def test_gradient_accumulation_folds_once_a_step(folds, fused):
    def train(model, steps=3, parts=4):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, fused=fused)
        for _ in range(steps):
            for _ in range(parts):
                model(rows()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters() if p.requires_grad]

    torch.manual_seed(0)
    plain = train(_net(strategy="folded").double().float())
    torch.manual_seed(0)
    model = _net(strategy="folded").double().float()
    with fold_once(model):
        kept = train(model)
    assert folds["folds"] == 3 * LAYERS
    for ours, theirs in zip(kept, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradient_checkpointing_folds_no_more_than_once(folds):
    model = _net(strategy="folded")
    with fold_once(model):
        torch.utils.checkpoint.checkpoint(model, rows(), use_reentrant=False).sum().backward()
    assert folds["folds"] == LAYERS


def test_inference_first_and_training_then(folds):
    model = _net(strategy="folded")
    with fold_once(model):
        with torch.inference_mode():
            model(rows())
        model(rows()).sum().backward()
    assert folds["folds"] == LAYERS


def test_a_tensor_in_the_place_of_a_freed_one_is_another_one():
    model = _net(init_weights=False).double().eval()
    name = "base_model.model.a.randlora_gamma.default.weight"
    gamma = model.get_parameter(name).detach()

    def outputs():
        return [functional_call(model, {name: k * gamma}, (rows().double(),)).sum().item() for k in range(8)]

    with torch.no_grad():
        expected = outputs()
        with fold_once(model):
            assert outputs() == pytest.approx(expected)


def test_a_change_is_seen(folds):
    model = _net().eval()
    with fold_once(model), torch.no_grad():
        first = model(rows())
        for change in ("gamma", "base weight", "scaling", "adapter"):
            layer = model.base_model.model.a
            if change == "gamma":
                layer.randlora_gamma["default"].weight.mul_(2)
            elif change == "base weight":
                layer.base_layer.weight.add_(0.1)
            elif change == "scaling":
                layer.scaling["default"] *= 2
            else:
                model.add_adapter("other", random_config(target_modules=["a"]))
                model.set_adapter("other")
            inside = model(rows())
            assert not torch.equal(inside, first), change
            first = inside
    with torch.no_grad():
        torch.testing.assert_close(model(rows()), first, rtol=1e-5, atol=1e-5)


def test_an_error_inside_and_one_inside_the_other_leave_nothing():
    model = _net()
    with pytest.raises(ZeroDivisionError), fold_once(model):
        raise ZeroDivisionError
    with fold_once(model):
        with fold_once(model):
            model(rows())
        assert model.base_model.model.a.folded_weights
    assert model.base_model.model.a.folded_weights is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_a_copy_made_inside_is_outside(copied):
    model = _net()
    with fold_once(model):
        expected = model(rows())
        other = copied(model)
    assert other.base_model.model.a.folded_weights is None
    torch.testing.assert_close(other(rows()), expected)


def test_a_strategy_for_one_layer():
    model = _net(strategy="auto", strategy_pattern={"b": "factored", "c": "reference"})
    layers = model.base_model.model
    assert [layer.strategy["default"] for layer in (layers.a, layers.b, layers.c)] == ["auto", "factored", "reference"]
