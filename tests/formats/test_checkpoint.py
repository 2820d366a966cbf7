"""Adapters on disk: whole, small, bit-equal, and refused in one line where they do not fit."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from networks import FAMILIES, MODELS, Net, llama, random_config, rows, token_ids
from randlora import RandLoraConfig, load_adapter
from randlora.errors import CheckpointError, RandLoraError
from randlora.methods.randlora import PEFT_TYPE

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def saved(tmp_path):
    """A saved adapter of `Net`, and its output."""
    model = peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"]))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model(rows())


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("bases", FAMILIES)
@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_bit_for_bit(name, bases, low_cpu_mem_usage, tmp_path):
    build, targets, task = MODELS[name]
    model = peft.get_peft_model(build(), random_config(bases=bases, target_modules=targets, task_type=task))
    expected = model(token_ids()).logits
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(loaded(token_ids()).logits, expected)
    kinds = {key.rsplit(".", 1)[1] for key in load_file(tmp_path / WEIGHTS)}
    assert kinds - {"weight", "bias"} == {"randlora_lambda", "randlora_gamma"}


@pytest.mark.parametrize("bases", FAMILIES)
def test_a_checkpoint_is_its_trained_numbers(bases, tmp_path):
    wide = nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 256))
    model = peft.get_peft_model(wide, RandLoraConfig(r=4, bases=bases, target_modules=["0", "1"]))
    model.save_pretrained(tmp_path)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    size = sum((tmp_path / name).stat().st_size for name in (WEIGHTS, CONFIG))
    assert trained <= size <= 1.05 * trained + 2**16


def test_the_same_adapter_in_another_process(saved, tmp_path, in_new_process):
    folder, expected = saved
    save_file(dict(Net().state_dict()), tmp_path / "net.safetensors")
    save_file({"y": expected.detach()}, tmp_path / "expected.safetensors")
    printed = in_new_process(
        f"""
import torch, randlora
from torch import nn
from safetensors.torch import load_file
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(13, 29), nn.Linear(29, 11), nn.Linear(11, 11, bias=False)
    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))
net = Net()
net.load_state_dict(load_file("net.safetensors"))
x = torch.randn(5, 13, generator=torch.Generator().manual_seed(3))
torch.set_num_threads({torch.get_num_threads()})
print(torch.equal(randlora.load_adapter(net, "{folder.name}")(x), load_file("expected.safetensors")["y"]))
"""
    )
    assert printed.splitlines()[-1] == "True"


def test_auto_classes_find_the_config_and_the_model(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    base = type(llama()).from_pretrained(tmp_path / "base")
    model = peft.get_peft_model(base, random_config(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(loaded(token_ids()).logits, model(token_ids()).logits)
    assert type(peft.PeftConfig.from_pretrained(tmp_path / "adapter")) is RandLoraConfig


def test_stock_peft_refuses_one_of_ours(saved, tmp_path, in_new_process):
    errors = in_new_process(
        """
import sys, peft
from torch import nn
try:
    peft.PeftModel.from_pretrained(nn.Sequential(nn.Linear(13, 29)), "adapter")
finally:
    assert "randlora" not in sys.modules
""",
        fails=True,
    )
    assert PEFT_TYPE in errors.splitlines()[-1]


def edit(folder, **values):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def truncate(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


DAMAGE = {
    "truncated": (truncate, "whole safetensors file"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "nothing there"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), CONFIG),
    "not JSON": (lambda folder: (folder / CONFIG).write_text("{"), "JSON"),
    "foreign": (lambda folder: save_file({"x": torch.zeros(2)}, folder / WEIGHTS), "another base model"),
    "fingerprint": (lambda folder: edit(folder, bases_fingerprint="0" * 16), "bases_fingerprint"),
    "seed": (lambda folder: edit(folder, seed=1), "bases_fingerprint"),
    "newer": (lambda folder: edit(folder, bases_version=99), "newer"),
    "no version": (lambda folder: edit(folder, bases_version="one"), "bases_version: expected an integer"),
    "rank": (lambda folder: edit(folder, r=3), r"expected \(5, 3\), got \(4, 4\)"),
    "bad value": (lambda folder: edit(folder, r=0), "r: expected"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_that_names_it(damage, saved):
    folder, _ = saved
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(RandLoraError, match=message) as caught:
        load_adapter(Net(), folder)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_base_model(saved):
    other = Net()
    other.b = nn.Linear(29, 17)
    other.c = nn.Linear(17, 11)
    for load in (load_adapter, peft.PeftModel.from_pretrained):
        with pytest.raises(CheckpointError, match=r"layer 'b': expected shape 11x29.*got 17x29.*another base model"):
            load(other, saved[0])


@pytest.mark.parametrize("bases", [name for name in FAMILIES if name != "peft"])
def test_an_adapter_of_the_first_version_loads_where_its_bases_are_the_same(bases, tmp_path):
    config = random_config(bases=bases, target_modules=["a", "b"], rank_pattern={"b": 7})  # c alone is nearly square
    model = peft.get_peft_model(Net(), config)
    model.save_pretrained(tmp_path)
    edit(tmp_path, bases_version=1)
    assert torch.equal(load_adapter(Net(), tmp_path)(rows()), model(rows()))


def test_an_adapter_of_the_first_version_is_refused_where_its_bases_had_less_than_full_rank(saved):
    edit(saved[0], bases_version=1)
    with pytest.raises(CheckpointError, match=r"layer 'c' of shape \(11, 11\): .*version 1.*r=4.*full rank"):
        load_adapter(Net(), saved[0])
    edit(saved[0], bases_version=1, rank_pattern={"c": 11})  # found before the tensors' shapes are compared
    with pytest.raises(CheckpointError, match=r"c.*expected \(1, 11\), got \(3, 4\)"):
        load_adapter(Net(), saved[0])


def test_sqrt_sparsity_becomes_a_number_that_is_kept(tmp_path):
    model = peft.get_peft_model(Net(), random_config(bases="ternary", sparsity="sqrt", target_modules=["a", "b"]))
    assert model.peft_config["default"].sparsity == pytest.approx(13**0.5)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.equal(loaded(rows()), model(rows()))
