"""What the adapter cannot do, it says before it does anything: layers, configs, files and calls that do not fit."""

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from networks import Net, random_config, rows
from randlora import RandLoraConfig, load_adapter
from randlora.errors import CheckpointError, LayerError

WEIGHTS = "adapter_model.safetensors"


def _net(**options):
    return peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"], **options))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_packed_weights(dtype):
    model = nn.ModuleDict({"fine": nn.Linear(4, 4), "packed": nn.Linear(4, 4)})
    model["packed"].weight = nn.Parameter(model["packed"].weight.to(dtype), requires_grad=False)
    with pytest.raises(LayerError, match=r"'packed'.*floating-point weight.*exclude_modules"):
        peft.get_peft_model(model, RandLoraConfig(target_modules=["fine", "packed"]))
    assert type(model["fine"]) is nn.Linear


def test_a_layer_that_is_never_called():
    # nn.MultiheadAttention reads out_proj.weight: an adapter there would train nothing and say nothing.
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2)})
    with pytest.raises(LayerError, match=r"attention\.out_proj"):
        peft.get_peft_model(model, RandLoraConfig(target_modules=["out_proj"]))


def test_merging_into_a_layer_that_the_model_has_twice():
    inner = nn.Linear(6, 6)
    model = peft.get_peft_model(nn.Sequential(inner, nn.Tanh(), inner), random_config(target_modules=["0"]))
    expected = model(torch.ones(1, 6))
    with pytest.raises(LayerError, match=r"module '0'.*'2' has too"):  # which has no adapter, as with PEFT's methods
        model.merge_and_unload()
    assert torch.equal(model(torch.ones(1, 6)), expected)
    block = nn.Sequential(inner, nn.Tanh())
    model = peft.get_peft_model(nn.Sequential(block, block), random_config(target_modules=["0.0"]))
    expected = model(torch.ones(1, 6))  # with the adapter in both places
    torch.testing.assert_close(model.merge_and_unload()(torch.ones(1, 6)), expected)


def test_ranks_that_peft_does_not_have():
    with pytest.raises(ValueError, match="rank_pattern: expected none with bases='peft'"):
        _net(bases="peft", rank_pattern={"a": 2})


def test_a_config_whose_peft_draw_was_made_for_a_smaller_model():
    config = random_config(bases="peft", target_modules=["0"])
    config.peft_draw = {"rows": 4, "columns": 4, "dtype": "bfloat16"}
    model = nn.Sequential(nn.Linear(40, 40))
    with pytest.raises(CheckpointError, match=r"at most 4 and 4.*new config"):
        peft.get_peft_model(model, config)
    assert type(model[0]) is nn.Linear


def _extra(name):
    return lambda tensors: {**tensors, name: torch.ones(2, 2)}


def _without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if not key.endswith(name)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_extra("base_model.model.z.randlora_lambda"), r"z\.randlora_lambda: expected a layer for it"),
        (_extra("base_model.model.a.lora_A.weight"), r"a\.lora_A\.weight: expected a layer for it"),
        (_without("b.randlora_gamma"), r"b\.randlora_gamma\.default\.weight: expected \(3, 11\), got none"),
        (
            lambda tensors: {key: tensor.T.contiguous() for key, tensor in tensors.items()},
            r"expected \(4, 13\), got \(13, 4\)",
        ),
    ],
)
@pytest.mark.parametrize("load", [load_adapter, peft.PeftModel.from_pretrained])
def test_tensors_that_do_not_fit(change, message, load, tmp_path):
    _net().save_pretrained(tmp_path)
    save_file(change(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(Net(), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_second_adapter_that_does_not_fit_leaves_the_first_alone(tmp_path):
    _net().save_pretrained(tmp_path)
    save_file(_without("b.randlora_gamma")(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS)
    model = _net(bases="uniform", r=2)
    expected = model(rows())
    with pytest.raises(CheckpointError):
        model.load_adapter(tmp_path, "second")
    assert torch.equal(model(rows()), expected)
