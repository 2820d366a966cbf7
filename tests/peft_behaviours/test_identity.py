"""What a model with adapters says of itself: names, shapes, status, its base model's state."""

import copy
import pickle
import warnings

import peft
import pytest
import torch
from peft import get_base_model_state_dict, set_base_model_state_dict

from every_method import METHODS, adapted, config, fill, layers, trained_names, with_second
from networks import Net, rows
from randlora.errors import ConfigError


def named(method, name):
    torch.manual_seed(2)
    return fill(peft.get_peft_model(Net(), config(method), adapter_name=name)).eval()


def test_the_adapters_name_makes_no_difference(method):
    default, other = named(method, "default"), named(method, "some-other_name")
    assert torch.equal(default(rows()), other(rows()))
    states = default.state_dict(), other.state_dict()
    assert [key.replace("default", "some-other_name") for key in states[0]] == list(states[1])
    assert other.active_adapters == ["some-other_name"]
    assert other.active_peft_config is other.peft_config["some-other_name"]


@pytest.mark.parametrize("name", ["with.dot", "keys", ""])
def test_a_name_that_no_parameter_can_have_is_refused_and_nothing_changed(method, name):
    base = Net()
    with pytest.raises(ConfigError, match=f"adapter_name: expected .*, got '{name}'"):
        peft.get_peft_model(base, config(method), adapter_name=name)
    assert list(base.state_dict()) == list(Net().state_dict())
    model = adapted(method)
    expected = model(rows())
    with pytest.raises(ConfigError, match="adapter_name"):
        model.add_adapter(name, config(method))
    assert set(model.peft_config) == {"default"}
    assert torch.equal(model(rows()), expected)


def test_layers_expose_their_shape_weight_and_bias(method):
    model = adapted(method).base_model.model
    plain = Net()
    for name in ("a", "b", "c"):
        layer, own = getattr(model, name), getattr(plain, name)
        assert (layer.in_features, layer.out_features) == (own.in_features, own.out_features)
        assert torch.equal(layer.weight, own.weight)
        assert (layer.bias is None) == (own.bias is None)
        assert "default" in repr(layer)


def test_layer_status(method):
    model = adapted(method, target_modules=["a", "b"], modules_to_save=["c"])
    model.add_adapter("other", config(method, target_modules=["b"]))
    status = {entry.name: entry for entry in model.get_layer_status()}
    assert set(status) == {"model.a", "model.b", "model.c"}
    assert status["model.a"].available_adapters == ["default"]
    assert status["model.b"].available_adapters == ["default", "other"]
    assert status["model.b"].requires_grad == {"default": True, "other": False}
    assert status["model.b"].devices == {"default": ["cpu"], "other": ["cpu"]}
    assert all(entry.enabled and entry.active_adapters == ["default"] for entry in status.values())
    model.set_adapter("other")
    status = {entry.name: entry for entry in model.get_layer_status()}
    assert status["model.b"].requires_grad == {"default": False, "other": True}
    assert status["model.c"].requires_grad == {"default": False}


def test_model_status(method):
    model = with_second(method)
    status = model.get_model_status()
    assert status.base_model_type == "Net"
    assert status.adapter_model_type == type(model.base_model).__name__
    assert status.peft_types == dict.fromkeys(("default", "other"), METHODS[method][0].type_name)
    assert status.num_adapter_layers == 3
    assert (status.trainable_params, status.total_params) == model.get_nb_trainable_parameters()
    assert status.trainable_params == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert status.enabled is True
    assert status.active_adapters == ["default"]
    assert status.requires_grad == {"default": True, "other": False}
    layers(model)[0].enable_adapters(False)
    layers(model)[1].set_adapter("other")
    status = model.get_model_status()
    assert status.enabled == status.active_adapters == "irregular"


def test_targeted_modules_are_listed(method):
    model = adapted(method, target_modules=["c", "a"])
    assert model.targeted_module_names == ["a", "c"]
    assert {name.split(".")[0] for name in trained_names(model)} == {"a", "c"}


def test_the_base_models_state_dict(method):
    model, plain = adapted(method, modules_to_save=["c"], target_modules=["a", "b"]), Net()
    state = get_base_model_state_dict(model)
    assert set(state) == set(plain.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())
    with torch.no_grad():
        model.base_model.model.a.base_layer.weight.zero_()
    result = set_base_model_state_dict(model, plain.state_dict(), strict=False)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(model.base_model.model.a.base_layer.weight, plain.a.weight)


def test_copies_and_pickles(any_method):
    model = with_second(any_method)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        for name in ("default", "other"):
            model.set_adapter(name)
            other.set_adapter(name)
            assert torch.equal(other(rows()), model(rows()))
        fill(other, seed=12)
        assert not torch.equal(other(rows()), model(rows()))


def test_a_model_is_adapted_again_after_unloading_without_a_warning_and_before_with_one(method):
    model = adapted(method)
    plain = model.unload()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = fill(peft.get_peft_model(plain, config(method))).eval()
    torch.testing.assert_close(again(rows()), adapted(method)(rows()))
    with pytest.warns(UserWarning, match="second time"):
        peft.get_peft_model(plain, config(method))
