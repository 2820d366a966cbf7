"""Without a PeftModel: adapters injected into a model, transformers' own integration, PEFT's conversion to LoRA."""

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from peft.utils.hotswap import hotswap_adapter

from every_method import adapted, config, fill, layers
from networks import Net, bert, rows, token_ids
from randlora import swap_adapter


def test_injected_and_filled(method):
    model = inject_adapter_in_model(config(method, target_modules=["a", "b"], modules_to_save=["c"]), Net())
    assert type(model) is Net
    assert isinstance(model.c, ModulesToSaveWrapper)
    assert len(layers(model)) == 2
    source = adapted(method, target_modules=["a", "b"], modules_to_save=["c"])
    state = {n.removeprefix("base_model.model."): t for n, t in get_peft_model_state_dict(source).items()}
    assert get_peft_model_state_dict(model).keys() == state.keys()
    set_peft_model_state_dict(model, state)
    assert torch.equal(model.eval()(rows()), source(rows()))


def test_injected_by_the_names_of_a_state_dict(method, recwarn):
    source = inject_adapter_in_model(config(method, target_modules=["c", "a"]), Net())
    state = get_peft_model_state_dict(source)
    recwarn.clear()
    own = config(method, target_modules=["c", "a"])
    model = inject_adapter_in_model(own, Net(), state_dict=state)
    assert not recwarn.list
    found = get_peft_model_state_dict(model)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in state.items()}


def test_injected_without_memory(any_method):
    model = inject_adapter_in_model(config(any_method), Net(), low_cpu_mem_usage=True)
    assert {p.device.type for p in get_peft_model_state_dict(model).values()} == {"meta"}
    assert {p.device.type for layer in layers(model) for p in layer.get_base_layer().parameters()} == {"cpu"}
    source = adapted(any_method)
    state = {n.removeprefix("base_model.model."): t for n, t in get_peft_model_state_dict(source).items()}
    set_peft_model_state_dict(model, state, low_cpu_mem_usage=True)
    assert torch.equal(model.eval()(rows()), source(rows()))


def test_transformers_own_integration(method, tmp_path):
    model = bert()
    plain = model(token_ids()).logits
    model.add_adapter(config(method, target_modules=["query", "dense"]), adapter_name="mine")
    fill(model)
    expected = model.eval()(token_ids()).logits
    assert (expected - plain).abs().max() > 1e-3
    assert model.active_adapters() == ["mine"]
    model.disable_adapters()
    torch.testing.assert_close(model(token_ids()).logits, plain)
    model.enable_adapters()
    model.save_pretrained(tmp_path)
    loaded = bert()
    loaded.load_adapter(str(tmp_path), adapter_name="again")
    torch.testing.assert_close(loaded.eval()(token_ids()).logits, expected)


def test_pefts_conversion_to_lora(method):
    model = adapted(method)
    assert model.supports_lora_conversion() == (method != "hydralora")
    if method == "hydralora":
        with pytest.raises(TypeError, match="support"):
            peft.convert_to_lora(model, rank=11)
        return
    lora_config, state = peft.convert_to_lora(model, rank=11)  # the smaller side of b and c; a's is 13
    lora = peft.get_peft_model(Net(), lora_config).eval()
    set_peft_model_state_dict(lora, state)
    for name, part in (("b", layers(model)[1]), ("c", layers(model)[2])):
        torch.testing.assert_close(
            getattr(lora.base_model.model, name).get_delta_weight("default"),
            part.get_delta_weight("default"),
            rtol=1e-4,
            atol=1e-5,
        )


def test_hot_swapping(method, tmp_path):
    adapted(method).save_pretrained(tmp_path)
    expected = PeftModel.from_pretrained(Net(), tmp_path)(rows())
    model = fill(adapted(method), seed=11)
    before = model(rows())
    places = [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="LORA"):
        hotswap_adapter(model, str(tmp_path), adapter_name="default")
    assert torch.equal(model(rows()), before)
    swap_adapter(model, tmp_path)
    assert torch.equal(model(rows()), expected)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
