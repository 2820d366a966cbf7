"""Models that accelerate has spread or offloaded, and models without memory."""

import copy

import accelerate
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from every_method import METHODS
from every_method import adapted as adapted_by
from networks import FAMILIES, Net, llama, random_config, rows, token_ids
from randlora.methods.randlora import RandLoraLayer

CPU = torch.device("cpu")


def _net(**options):
    return peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"], **options))


@pytest.mark.parametrize("strategy", ["auto", "reference"])
@pytest.mark.parametrize("bases", FAMILIES)
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_an_offloaded_model_gives_the_same(bases, strategy, where, tmp_path):
    # In float64, since the hooks of an offloaded layer may ask for another strategy, which rounds otherwise.
    model = _net(bases=bases, strategy=strategy).double()
    x = rows().double()
    expected = model(x).detach()
    if where == "cpu":
        model = accelerate.cpu_offload(model, execution_device=CPU)
    else:
        model = accelerate.disk_offload(model, tmp_path, execution_device=CPU)
    layer = model.base_model.model.a
    assert layer.randlora_gamma["default"].weight.is_meta
    for _ in range(2):
        torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)
        assert layer.randlora_gamma["default"].weight.is_meta


def test_an_offloaded_model_can_be_merged():
    model = _net()
    expected = model(rows()).detach()
    merged = accelerate.cpu_offload(model, execution_device=CPU).merge_and_unload()
    torch.testing.assert_close(merged(rows()), expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_loaded_onto_a_device_map(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        random_config(target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    model.save_pretrained(tmp_path / "adapter")
    spread = AutoModelForCausalLM.from_pretrained(tmp_path / "base", device_map={"": "cpu"})
    loaded = peft.PeftModel.from_pretrained(spread, tmp_path / "adapter")
    assert torch.equal(loaded(token_ids()).logits, model(token_ids()).logits)


@pytest.mark.parametrize("bases", FAMILIES)
def test_low_cpu_mem_usage_puts_the_adapter_beside_its_layer(bases, tmp_path):
    model = _net(bases=bases)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net().bfloat16(), tmp_path, low_cpu_mem_usage=True)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    for name, layer in loaded.base_model.model.named_modules():
        if isinstance(layer, RandLoraLayer):
            # float32 as it was saved, though the layer is bfloat16.
            for kind in ("randlora_lambda", "randlora_gamma"):
                assert torch.equal(getattr(layer, kind)["default"].weight, saved[f"base_model.model.{name}.{kind}"])
    assert loaded(rows().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("method", METHODS)
def test_memory_that_is_filled_from_a_state_dict(method):
    model = adapted_by(method)
    expected = model(rows())
    state = copy.deepcopy(model.state_dict())
    model.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(model(rows()), expected)
