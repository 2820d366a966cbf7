"""Which adapters are active, and which parameters are trained then."""

import peft
import pytest
import torch

from every_method import adapted, config, fill, layers, trained_names, with_second
from kinds import KINDS
from networks import Net, bert, rows, token_ids
from randlora.errors import LayerError


def owners(model):
    """Module -> the adapters of which something is trained there."""
    found = {}
    for name in trained_names(model):
        module, adapter = name.split(".")[0], next(part for part in name.split(".") if part in ("default", "other"))
        found.setdefault(module, set()).add(adapter)
    return found


def test_one_or_several(method):
    model = with_second(method)
    assert (model.active_adapters, model.active_adapter) == (["default"], "default")
    alone = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        assert (model.active_adapters, model.active_adapter) == ([name], name)
        alone[name] = model(rows())
    model.base_model.set_adapter(["default", "other"])
    assert model.active_adapters == model.base_model.active_adapter == ["default", "other"]
    assert owners(model) == {module: {"default", "other"} for module in "abc"}
    together = model(rows())
    assert all((together - output).abs().max() > 1e-2 for output in alone.values())


def test_active_together_updates_add_up(method):
    model = with_second(method).double()
    x = rows().double()
    layer = model.base_model.model.a
    outputs = []
    for names in ([], ["default"], ["other"], ["default", "other"]):
        layer.set_adapter(names)
        outputs.append(layer(x))
    base, first, second, together = outputs
    torch.testing.assert_close(together - base, (first - base) + (second - base))


def test_an_added_adapter_is_neither_active_nor_trained(method):
    model = adapted(method, target_modules=["a", "b"])
    expected = model(rows())
    model.add_adapter("other", config(method, target_modules=["b", "c"], modules_to_save=[]))
    assert owners(model) == {"a": {"default"}, "b": {"default"}}
    assert torch.equal(model(rows()), expected)
    for name, modules in (("other", "bc"), ("default", "ab")):
        model.set_adapter(name)
        assert owners(model) == {module: {name} for module in modules}
        assert all(layer.active_adapters == [name] for layer in layers(model))
    model.base_model.set_adapter(["other"])
    assert owners(model) == {"b": {"other"}, "c": {"other"}}


def test_set_requires_grad(method):
    model = with_second(method, target_modules=["a"])
    assert owners(model) == {"a": {"default"}}
    model.set_requires_grad("other")
    assert owners(model) == {"a": {"default", "other"}}
    model.set_requires_grad(["default", "other"], requires_grad=False)
    assert owners(model) == {}


def test_inference_mode_freezes(method, tmp_path):
    model = with_second(method, target_modules=["a"], modules_to_save=["c"])
    model.set_adapter("other", inference_mode=True)
    assert owners(model) == {}
    model.set_adapter("default", inference_mode=False)
    assert owners(model) == {"a": {"default"}, "c": {"default"}}
    assert owners(peft.get_peft_model(Net(), config(method, inference_mode=True))) == {}
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    assert owners(loaded) == {}
    assert loaded.peft_config["default"].inference_mode
    assert owners(peft.PeftModel.from_pretrained(Net(), tmp_path, is_trainable=True)) == {
        "a": {"default"},
        "c": {"default"},
    }


def test_modules_trained_whole_belong_to_their_adapter(method):
    model = adapted(method, target_modules=["a"], modules_to_save=["c"])
    model.add_adapter("other", config(method, target_modules=["a"], modules_to_save=["b"]))
    b, c = model.base_model.model.b, model.base_model.model.c
    assert (list(b.modules_to_save), list(c.modules_to_save)) == (["other"], ["default"])  # no needless copies
    assert owners(model) == {"a": {"default"}, "c": {"default"}}
    first = model(rows())
    model.set_adapter("other")
    assert owners(model) == {"a": {"other"}, "b": {"other"}}
    fill(model, seed=7)
    model.set_adapter("default")
    assert torch.equal(model(rows()), first)
    model.base_model.set_adapter(["default", "other"])
    assert (b.active_adapters, c.active_adapters) == (["other"], ["default"])


def test_two_active_adapters_cannot_both_have_trained_a_module_whole(method):
    model = with_second(method, target_modules=["a"], modules_to_save=["c"])
    with pytest.raises(ValueError, match="adapter"):
        model.base_model.set_adapter(["default", "other"])


def test_heads_that_a_task_type_trains(method):
    model = adapted(method, bert(), target_modules=["query"], task_type="SEQ_CLS")
    model.add_adapter("other", config(method, target_modules=["query"], task_type="SEQ_CLS"))
    assert set(model.base_model.model.classifier.modules_to_save) == {"default", "other"}
    expected = model(token_ids()).logits
    model.set_adapter("other")
    fill(model, seed=8)
    assert (model(token_ids()).logits - expected).abs().max() > 1e-2
    model.set_adapter("default")
    assert torch.equal(model(token_ids()).logits, expected)


def test_other_methods_on_the_same_model_are_refused(method):
    model = adapted(method)
    expected = model(rows())
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("other", peft.LoraConfig(target_modules=["a"]))
    with pytest.raises(ValueError, match="PeftMixedModel"):
        peft.get_peft_model(Net(), config(method), mixed=True)
    assert torch.equal(model(rows()), expected)


@pytest.mark.filterwarnings("ignore:You are trying to modify")
def test_a_second_method_lies_around_the_first():
    model = adapted("nola")
    expected = model(rows())
    assert torch.equal(peft.get_peft_model(model, config("randlora")).eval()(rows()), expected)


@pytest.mark.filterwarnings("ignore:You are trying to modify")
@pytest.mark.parametrize(
    ("there", "method"), [("randlora", "hybrid"), ("hybrid", "randlora"), ("spectral", "randlora")]
)
def test_a_method_made_of_the_first_is_refused(there, method):
    model = adapted(there)
    expected = model(rows())
    with pytest.raises(LayerError, match=r"module '.*\.a': expected no adapter of another method on it, got"):
        peft.get_peft_model(model, config(method))
    assert torch.equal(model(rows()), expected)


@pytest.mark.filterwarnings("ignore:You are trying to modify")
@pytest.mark.parametrize(
    ("kind", "options"), [("attention", {"target_modules": ["packed"]}), ("experts", {"target_parameters": ["down"]})]
)
def test_a_second_method_on_parameters_is_refused(kind, options):
    model = KINDS[kind].adapted()
    x = KINDS[kind].batch()
    expected = model(x)
    with pytest.raises(LayerError, match="expected no adapter of another method on it, got RandLoraLayer"):
        peft.get_peft_model(model, config("nola", **{"target_modules": None, **options}))
    assert torch.equal(model(x), expected)


@pytest.mark.filterwarnings("ignore:You are trying to modify")
def test_an_attention_module_with_pefts_lora_is_refused():
    attention = peft.get_peft_model(KINDS["attention"].plain(), peft.LoraConfig(target_modules=["packed"]))
    with pytest.raises(LayerError, match=r"'.*packed': expected no adapter of another method on it, got Multihead"):
        peft.get_peft_model(attention, config("randlora", target_modules=["packed"]))
