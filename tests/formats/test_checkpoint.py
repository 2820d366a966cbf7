"""Adapters on disk: whole, small, bit-equal, and refused in one line where they do not fit."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from every_method import fill
from networks import FAMILIES, MODELS, Net, llama, random_config, rows, token_ids
from randlora import RandLoraConfig, load_adapter
from randlora.errors import CheckpointError, RandLoraError
from randlora.formats.checkpoint import check_filled
from randlora.methods.randlora import PEFT_TYPE

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def saved(tmp_path):
    """A saved adapter of `Net`, and its output."""
    model = peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"]))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model(rows())


@pytest.mark.parametrize(
    ("bases", "low_cpu_mem_usage"), [*((bases, False) for bases in FAMILIES), ("uniform", True), ("structured", True)]
)
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


def test_the_same_adapter_in_another_process(saved, tmp_path, without_randlora):
    folder, expected = saved
    save_file(dict(Net().state_dict()), tmp_path / "net.safetensors")
    save_file({"y": expected.detach()}, tmp_path / "expected.safetensors")
    printed = without_randlora(
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


def test_stock_peft_refuses_one_of_ours(saved, tmp_path, without_randlora):
    errors = without_randlora(
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_number_that_is_not_finite_is_enough(value, tmp_path):
    model = peft.get_peft_model(Net(), random_config(target_modules=["a"]))
    with torch.no_grad():
        model.base_model.model.a.randlora_gamma["default"].weight[1, 2] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"randlora_gamma: expected finite numbers.*lower learning rate"):
        load_adapter(Net(), tmp_path)


def test_a_base_model_of_another_class_is_refused(tmp_path):
    class Other(Net):
        """The same layers under another name."""

    peft.get_peft_model(Net(), random_config(target_modules=["a"])).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="the adapter's base model: expected Net, got Other"):
        load_adapter(Other(), tmp_path)


@pytest.mark.parametrize(
    "config", [random_config(target_modules=["a", "b"]), peft.LoraConfig(target_modules=["a", "b"])]
)
@pytest.mark.parametrize("change", ["one too many", "one too few"])
def test_a_file_with_other_tensors_than_the_adapter_has_is_refused(config, change, tmp_path):
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    if change == "one too many":
        tensors["base_model.model.z.weight"] = torch.ones(2)
        expected = r"base_model\.model\.z\.weight: expected a layer for it, got none"
    else:
        tensors.pop(min(tensors))
        expected = "expected a tensor|adapter tensor"
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=expected):
        load_adapter(Net(), tmp_path)


@pytest.mark.parametrize("config", [peft.LoraConfig, peft.VeraConfig, peft.MissConfig, RandLoraConfig])
def test_an_adapter_whose_tensors_are_renamed_past_their_layers_is_refused(config, tmp_path):
    """PEFT loads nothing then, and says nothing."""
    model = fill(peft.get_peft_model(Net(), config(r=2, target_modules=["a", "b"])))
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="base_model"):
        load_adapter(Net(), tmp_path, key_mapping={"^a": "z"})
    with pytest.raises(CheckpointError, match="base_model"):
        load_adapter(Net(), tmp_path, key_mapping={"^a": "b"})  # two tensors of one name


def test_an_adapter_with_other_names_loads_by_a_mapping_of_them(tmp_path):
    model = fill(peft.get_peft_model(Net(), peft.LoraConfig(r=2, target_modules=["a", "b"]))).eval()
    model.save_pretrained(tmp_path)
    renamed = {name.replace(".a.", ".first."): tensor for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    save_file(renamed, tmp_path / WEIGHTS)
    loaded = load_adapter(Net(), tmp_path, key_mapping={"^first": "a"})
    assert torch.equal(loaded(rows()), model(rows()))


def test_numbers_that_did_not_come_to_their_place_are_told(tmp_path):
    model = fill(peft.get_peft_model(Net(), peft.LoraConfig(r=2, target_modules=["a", "b"])))
    saved = {name: tensor.clone() for name, tensor in peft.get_peft_model_state_dict(model).items()}
    check_filled(model, "default", saved, "adapter")
    name = next(iter(saved))
    saved[name] += 1
    with pytest.raises(CheckpointError, match=f"adapter: {name}: expected the saved numbers"):
        check_filled(model, "default", saved, "adapter")
