"""`disable_adapter`: the base model's output inside, the state before afterwards."""

import warnings

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from every_method import adapted, config, layers, trained_names
from networks import Net, rows


def disabled(model):
    return {module.disable_adapters for module in model.modules() if isinstance(module, BaseTunerLayer)}


def test_inside_the_base_model_and_afterwards_the_adapter(method):
    model = adapted(method, target_modules=["a", "b"], modules_to_save=["c"])
    expected = model(rows())
    with model.disable_adapter():
        assert torch.equal(model(rows()), Net()(rows()))
    assert torch.equal(model(rows()), expected)


def test_contexts_nest_and_restore_what_was(method):
    model = adapted(method)
    before = trained_names(model)
    assert model.has_active_enabled_adapter
    with model.disable_adapter():
        with model.disable_adapter():
            assert disabled(model) == {True}
        assert disabled(model) == {True}
        assert not model.has_active_enabled_adapter
        assert not trained_names(model)
    assert disabled(model) == {False}
    assert trained_names(model) == before
    model.base_model.disable_adapter_layers()
    with model.disable_adapter():
        assert torch.equal(model(rows()), Net()(rows()))
    assert disabled(model) == {True}
    model.base_model.enable_adapter_layers()
    assert trained_names(model) == before


def test_a_mixed_state_is_warned_of_and_ends_enabled(method):
    model = adapted(method)
    layers(model)[0].enable_adapters(False)
    with pytest.warns(UserWarning, match="enabled"), model.disable_adapter():
        pass
    assert disabled(model) == {False}


@pytest.mark.parametrize("bias", ["none", "all", "only"])
def test_trained_biases_are_warned_of(method, bias):
    model = adapted(method)
    model = adapted(method, bias=bias if bias != "only" else f"{model.base_model.prefix}only")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with model.disable_adapter():
            pass
    warned = any("bias" in str(w.message) for w in caught)
    assert warned == (bias != "none")


def test_a_second_adapter_with_biases_is_refused_and_the_model_left_as_it_was(method):
    model = adapted(method, bias="all")
    expected, names = model(rows()), list(model.state_dict())
    with pytest.raises(ValueError, match="bias"):
        model.add_adapter("other", config(method, bias="all"))
    assert set(model.peft_config) == {"default"}
    assert list(model.state_dict()) == names
    assert torch.equal(model(rows()), expected)


def test_merged_it_is_unmerged_inside(mergeable):
    model = adapted(mergeable)
    expected = model(rows())
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(model(rows()), Net()(rows()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(rows()), expected, rtol=1e-4, atol=1e-5)
    with peft.get_peft_model(Net(), config(mergeable)).disable_adapter() as nothing:
        assert nothing is None
