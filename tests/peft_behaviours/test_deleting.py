"""`delete_adapter`: which adapter is active then, and that nothing of the deleted one stays."""

import pytest
import torch

from every_method import adapted, config, fill, layers, trained_names, with_second
from networks import Net, rows


def remains(model, name):
    """Where an adapter's name is still a key: any mapping of any module, whatever it is called."""
    found = []
    for path, module in model.named_modules():
        for attribute, value in {**vars(module), **module._modules}.items():
            if not attribute.startswith("_") and hasattr(value, "keys") and name in value.keys():  # noqa: SIM118
                found.append(f"{path}.{attribute}")
    return found + [key for key in model.state_dict() if name in key.split(".")]


@pytest.mark.parametrize("deleted", ["default", "other"])
def test_the_other_one_is_active_and_unchanged(method, deleted):
    model = with_second(method)
    kept = "other" if deleted == "default" else "default"
    model.set_adapter(kept)
    expected = model(rows())
    model.set_adapter(deleted)
    assert remains(model, deleted)
    with pytest.warns(UserWarning, match="deleted"):
        model.delete_adapter(deleted)
    assert model.active_adapters == [kept]
    assert remains(model, deleted) == []
    assert torch.equal(model(rows()), expected)


@pytest.mark.parametrize("targets", [["a"], ["b"]])
def test_one_adapter_is_active_on_all_layers_then(method, targets):
    model = with_second(method, target_modules=targets, second={"target_modules": ["b" if targets == ["a"] else "a"]})
    expected = model(rows())
    model.add_adapter("third", config(method, target_modules=["a", "b", "c"]))
    model.set_adapter("third")
    model.delete_adapter("third")
    assert model.active_adapters == ["default"]
    assert torch.equal(model.eval()(rows()), expected)
    assert {name.split(".")[-2] for name in trained_names(model)} == {"default"}


def test_an_inactive_one_then_the_last_one(method):
    model = with_second(method)
    expected = model(rows())
    model.delete_adapter("other")
    assert model.active_adapters == ["default"]
    assert torch.equal(model(rows()), expected)
    model.delete_adapter("default")
    assert model.active_adapters == []
    assert not model.peft_config
    assert remains(model, "default") == []
    torch.testing.assert_close(model.base_model(rows()), Net()(rows()))


def test_an_unknown_one_is_refused(method):
    model = adapted(method)
    with pytest.raises(ValueError, match="unknown"):
        model.delete_adapter("unknown")


def test_a_merged_one_is_refused_and_the_others_are_not(mergeable):
    model = with_second(mergeable)
    model.merge_adapter()
    merged = model(rows())
    with pytest.raises(ValueError, match="while they are merged"):
        model.delete_adapter("default")
    assert all(layer.merged_adapters == ["default"] for layer in layers(model))
    model.delete_adapter("other")
    assert torch.equal(model(rows()), merged)
    model.unmerge_adapter()
    model.delete_adapter("default")
    assert not model.peft_config


def test_modules_that_were_trained_whole_follow(method):
    model = adapted(method, target_modules=["a"], modules_to_save=["c"])
    expected = model(rows())
    model.add_adapter("other", config(method, target_modules=["a"]))
    model.set_adapter("other")
    fill(model, seed=6)
    head = model.base_model.model.c
    assert not head.modules_to_save["default"].weight.requires_grad
    model.delete_adapter("other")
    assert model.active_adapters == head.active_adapters == ["default"]
    assert head.modules_to_save["default"].weight.requires_grad
    assert torch.equal(model(rows()), expected)
    model.delete_adapter("default")
    assert not list(head.modules_to_save)


def test_a_name_can_be_used_again(method):
    model = with_second(method)
    expected = model(rows())
    model.delete_adapter("other")
    model.add_adapter("other", config(method, target_modules=["b"]))
    assert torch.equal(model(rows()), expected)
    before = model.state_dict()
    with pytest.raises(ValueError, match="other"):
        model.add_adapter("other", config(method))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
