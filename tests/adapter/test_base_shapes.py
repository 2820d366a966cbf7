"""The shapes of the adapted layers, which trained tensors show only half of, kept in the config and checked at load."""

import json

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from every_method import REPRESENTATIVES, adapted, config
from networks import Net, llama, random_config
from randlora import load_adapter, swap_adapter
from randlora.errors import CheckpointError

OTHERS = {
    "more outputs": (nn.Linear(6, 12), nn.Linear(6, 50), "12x6.*got 50x6"),
    "more inputs": (nn.Linear(12, 6), nn.Linear(50, 6), "6x12.*got 6x50"),
    "sides swapped": (nn.Linear(6, 12), nn.Linear(12, 6), "12x6.*got 6x12"),
    "a larger vocabulary": (nn.Embedding(20, 6), nn.Embedding(90, 6), "20x6.*got 90x6"),
    "a smaller vocabulary": (nn.Embedding(90, 6), nn.Embedding(20, 6), "90x6.*got 20x6"),
    "more channels": (nn.Conv2d(8, 6, 3), nn.Conv2d(80, 6, 3), "6x8x3x3.*got 6x80x3x3"),
    "another kernel": (nn.Conv2d(9, 6, 2), nn.Conv2d(1, 6, 6), "6x9x2x2.*got 6x1x6x6"),
}


@pytest.mark.parametrize(
    ("case", "method"),
    [
        (case, method)
        for case, (layer, _, _) in OTHERS.items()
        for method in REPRESENTATIVES
        if isinstance(layer, nn.Linear) or method != "hydralora"
    ],
)
def test_an_adapter_for_another_shape_is_refused_and_the_model_left_as_it_was(case, method, tmp_path):
    trained_on, other, message = OTHERS[case]
    base = nn.ModuleDict({"a": nn.Linear(5, 5), "b": trained_on})
    peft.get_peft_model(base, config(method, target_modules=["a", "b"])).save_pretrained(tmp_path)
    model = nn.ModuleDict({"a": nn.Linear(5, 5), "b": other})
    for load in (load_adapter, peft.PeftModel.from_pretrained):
        with pytest.raises(CheckpointError, match=f"layer 'b': expected shape {message}") as caught:
            load(model, tmp_path)
        assert "\n" not in str(caught.value)
        assert type(model["a"]) is nn.Linear


def test_stacks_of_another_width_are_refused(tmp_path):
    class Stack(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.up = nn.Parameter(torch.randn(3, 4, width))

    options = {"target_parameters": ["up"]}
    peft.get_peft_model(nn.Sequential(Stack(9)), random_config(**options)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"layer '0\.up': expected shape 3x4x9.*got 3x4x19"):
        load_adapter(nn.Sequential(Stack(19)), tmp_path)


def test_blocks_with_the_same_shapes_share_a_line(tmp_path):
    model = peft.get_peft_model(llama(), random_config(target_modules=["q_proj", "down_proj", "lm_head"]))
    expected = {
        "lm_head": "50x24",
        "model.layers.*.mlp.down_proj": "24x40",
        "model.layers.*.self_attn.q_proj": "24x24",
    }
    assert model.peft_config["default"].base_shapes == expected
    blocks = nn.ModuleDict({"h": nn.ModuleList([nn.Linear(4, 7), nn.Linear(4, 9)])})
    model = peft.get_peft_model(blocks, random_config(target_modules=["0", "1"]))
    assert model.peft_config["default"].base_shapes == {"h.0": "7x4", "h.1": "9x4"}


def test_an_adapter_without_shapes_loads_as_before(tmp_path):
    model = adapted("randlora")
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    fields = json.loads(file.read_text())
    del fields["base_shapes"]
    file.write_text(json.dumps(fields))
    x = torch.randn(3, 13)
    assert torch.equal(load_adapter(Net(), tmp_path)(x), model(x))


def test_an_adapter_of_other_shapes_is_not_swapped_in(tmp_path):
    options = {"target_modules": ["0"], "task_type": None}
    wide = peft.get_peft_model(nn.Sequential(nn.Linear(6, 50)), random_config(**options))
    wide.save_pretrained(tmp_path)
    model = peft.get_peft_model(nn.Sequential(nn.Linear(6, 12)), random_config(**options))
    with pytest.raises(CheckpointError, match=r"layer '\*': expected shape"):
        swap_adapter(model, tmp_path)


@pytest.mark.parametrize("method", REPRESENTATIVES)
@pytest.mark.parametrize(
    ("blocks", "targets"), [(1, "all-linear"), (3, ["q_proj"]), (1, "model.layers.0.self_attn.q_proj")]
)
def test_an_adapter_for_more_or_fewer_blocks_is_refused(method, targets, blocks, tmp_path):
    targets = [targets] if "." in targets else targets
    peft.get_peft_model(llama(), config(method, target_modules=targets)).save_pretrained(tmp_path)
    other = llama().config
    other.num_hidden_layers = blocks
    other = LlamaForCausalLM(other)
    with pytest.raises(CheckpointError, match=rf"block list 'model\.layers': expected 2 blocks.*got {blocks}"):
        peft.PeftModel.from_pretrained(other, tmp_path)
    assert type(other.model.layers[0].self_attn.q_proj) is nn.Linear
