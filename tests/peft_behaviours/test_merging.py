"""Merging: several adapters, in any order, in half precision, and what is not finite."""

import copy
import pickle

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn

from every_method import adapted, config, fill, layers, with_second
from networks import Net, rows
from randlora.errors import ConfigError, LayerError, UpdateError

NEAR = {"rtol": 1e-4, "atol": 1e-5}  # two layers of sums of up to 29 float32 products of order 1


def both(model):
    """The output with both adapters active; afterwards as before."""
    model.base_model.set_adapter(["default", "other"])
    output = model(rows()).detach()
    model.set_adapter("default")
    return output


def weights(model):
    return [layer.get_base_layer().weight.detach().clone() for layer in layers(model)]


@pytest.mark.parametrize("names", [["default"], ["other"], ["default", "other"], ["other", "default"]])
def test_the_named_adapters_are_merged(mergeable, names):
    model = with_second(mergeable)
    model.base_model.set_adapter(names)
    expected, before = model(rows()), weights(model)
    model.set_adapter("default")
    unloaded = copy.deepcopy(model).merge_and_unload(adapter_names=names)
    torch.testing.assert_close(unloaded(rows()), expected, **NEAR)
    model.merge_adapter(adapter_names=names)
    assert all(layer.merged_adapters == names for layer in layers(model))
    torch.testing.assert_close(model(rows()), expected, **NEAR)
    model.unmerge_adapter()
    for weight, old in zip(weights(model), before, strict=True):
        torch.testing.assert_close(weight, old, **NEAR)


def test_one_after_the_other_and_again(mergeable):
    model = with_second(mergeable)
    expected = both(model)
    model.merge_adapter()
    with pytest.warns(UserWarning, match="other"):
        model.merge_adapter(adapter_names=["default", "other"])
    torch.testing.assert_close(model(rows()), expected, **NEAR)
    merged = weights(model)
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter(adapter_names=["other"])
    assert all(map(torch.equal, weights(model), merged))
    model.unmerge_adapter()
    again = weights(model)
    model.unmerge_adapter()
    assert all(map(torch.equal, weights(model), again))
    torch.testing.assert_close(both(model), expected, **NEAR)


def test_setting_an_adapter_unmerges_with_a_warning(mergeable):
    model = with_second(mergeable)
    expected = model(rows())
    model.merge_adapter()
    with pytest.warns(UserWarning, match="[Uu]nmerging"):
        model.set_adapter("default")
    assert not any(layer.merged for layer in layers(model))
    torch.testing.assert_close(model(rows()), expected, **NEAR)


@pytest.mark.parametrize("merge", [True, False])
def test_an_unloaded_model_is_a_plain_one(mergeable, merge, tmp_path):
    model = adapted(mergeable, target_modules=["a", "b"], modules_to_save=["c"])
    expected = model(rows())
    plain = model.merge_and_unload(safe_merge=True) if merge else model.unload()
    assert [type(part) for part in plain.modules()] == [type(part) for part in Net().modules()]
    assert not any(isinstance(part, BaseTunerLayer) for part in plain.modules())
    assert not hasattr(plain, "peft_config")
    assert list(plain.state_dict()) == list(Net().state_dict())
    if merge:
        torch.testing.assert_close(plain(rows()), expected, **NEAR)
    else:
        assert torch.equal(plain.a.weight, Net().a.weight)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")  # which takes contiguous tensors only
    fresh = Net()
    fresh.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    assert torch.equal(fresh(rows()), plain(rows()))
    assert torch.equal(pickle.loads(pickle.dumps(plain))(rows()), plain(rows()))  # noqa: S301 - our own bytes


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_in_half_precision(any_mergeable, dtype, tolerance):
    # A few roundings of 11, or 8, bits in each of three layers.
    expected = adapted(any_mergeable)(rows())
    near = tolerance * expected.abs().max()
    base = peft.get_peft_model(Net().to(dtype), config(any_mergeable), autocast_adapter_dtype=False)
    model, x = base.eval(), rows().to(dtype)
    model.load_state_dict(adapted(any_mergeable).state_dict())
    for step in (None, "merge", "unmerge", "safe merge", "unmerge", "unload"):
        if step in ("merge", "safe merge"):
            model.merge_adapter(safe_merge=step == "safe merge")
        elif step == "unmerge":
            model.unmerge_adapter()
        elif step == "unload":
            model = model.merge_and_unload()
        output = model(x)
        assert output.dtype == dtype
        assert (output.float() - expected).abs().max() <= near, step


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_a_safe_merge_of_what_is_not_finite_changes_nothing(mergeable, merge, value):
    for position in range(len(layers(adapted(mergeable))[0].adapter_layer_names)):
        model = with_second(mergeable, modules_to_save=[])
        last = layers(model)[-1]
        with torch.no_grad():
            last.trained("other")[position].view(-1)[0] = value
        before = weights(model)
        with pytest.raises(LayerError, match=r"adapter 'other': expected finite merged weights"):
            getattr(model, merge)(safe_merge=True, adapter_names=["default", "other"])
        assert all(map(torch.equal, weights(model), before))
        assert not any(layer.merged for layer in layers(model))
        with pytest.raises(LayerError, match="finite"):
            last.merge(safe_merge=True, adapter_names=["default", "other"])
        assert not last.merged
        assert all(map(torch.equal, weights(model), before))


def test_a_safe_merge_sees_what_overflows_in_the_weights_dtype(mergeable):
    model = adapted(mergeable, Net().half())
    layer = layers(model)[0]
    delta = layer.get_delta_weight("default").abs().max()
    with torch.no_grad():  # ΔW is finite in float32, and linear in the last of its trained tensors
        layer.trained("default")[-1].mul_(1e5 / delta)
    assert layer.get_delta_weight("default").isfinite().all()
    with pytest.raises(LayerError, match="finite"):
        model.merge_adapter(safe_merge=True)
    assert not any(part.merged for part in layers(model))


def test_a_base_weight_that_is_not_finite_is_no_fault_of_the_bias(mergeable):
    model = adapted(mergeable)
    with torch.no_grad():
        layers(model)[0].get_base_layer().bias[0] = float("inf")
    model.merge_adapter(safe_merge=True)
    assert all(layer.merged for layer in layers(model))


def test_an_adapter_on_other_layers_is_merged_where_it_is(mergeable):
    model = adapted(mergeable, target_modules=["a"])
    model.add_adapter("other", config(mergeable, target_modules=["a", "b"]))
    model.merge_adapter(adapter_names=["other"])
    assert {layer.out_features: layer.merged_adapters for layer in layers(model)} == {29: ["other"], 11: ["other"]}
    model.unmerge_adapter()
    model.merge_adapter()
    assert [layer.merged_adapters for layer in layers(model)] == [["default"], []]


@pytest.mark.parametrize("names", ["default", ["default", "unknown"]])
@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_names_that_are_not_there_are_refused(mergeable, merge, names):
    model = adapted(mergeable)
    expected = model(rows())
    with pytest.raises(ConfigError, match=f"adapter_names: expected a list with names of 'default', got .*{names[-1]}"):
        getattr(model, merge)(adapter_names=names)
    assert torch.equal(model(rows()), expected)
    assert not any(layer.merged for layer in layers(model))


def test_a_weight_that_another_module_has_too_is_not_merged_into(mergeable):
    base = Net()
    base.tied = nn.Linear(11, 11, bias=False)
    base.tied.weight = base.c.weight
    model = adapted(mergeable, base)
    expected, before = model(rows()), weights(model)
    with pytest.warns(UserWarning, match=r"c and tied have one weight.*untied.*until unmerge_adapter"):
        model.merge_adapter()
    torch.testing.assert_close(model(rows()), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(base.tied.weight, Net().c.weight)
    model.unmerge_adapter()
    assert base.c.base_layer.weight is base.tied.weight
    assert torch.equal(weights(model)[-1], before[-1])
    with pytest.warns(UserWarning, match=r"c and tied have one weight"):
        merged = model.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(merged(rows()), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(base.tied.weight, Net().c.weight)


@pytest.mark.parametrize("call", ["merge_adapter", "merge_and_unload"])
def test_a_method_whose_update_is_no_weight_leaves_all_as_it_was(call):
    model = adapted("hydralora", target_modules=["b"], modules_to_save=["a"])
    expected = model(rows())
    with pytest.raises(UpdateError, match=r"router.*cannot be merged") as caught:
        getattr(model, call)()
    assert "\n" not in str(caught.value)
    assert torch.equal(model(rows()), expected)
    assert isinstance(model.base_model.model.a, ModulesToSaveWrapper)


def test_a_name_in_place_of_a_list_is_refused_though_its_letters_are_names():
    model = fill(peft.get_peft_model(Net(), config("randlora"), adapter_name="a"))
    with pytest.raises(ConfigError, match="adapter_names: expected a list with names of 'a', got 'a'"):
        model.merge_adapter(adapter_names="a")
    assert not any(layer.merged for layer in layers(model))


def test_a_safe_merge_adds_nothing_a_second_time(mergeable):
    model = adapted(mergeable, Net().half(), target_modules=["a"])
    (layer,) = layers(model)
    delta = layer.get_delta_weight("default").abs().max()
    with torch.no_grad():  # twice this is infinite in float16
        layer.trained("default")[-1].mul_(4e4 / delta)
    model.merge_adapter(safe_merge=True)
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter(safe_merge=True)
    assert layer.merged_adapters == ["default"]
