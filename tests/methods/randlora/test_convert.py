"""PEFT's RandLora to ours and back: the same output, stored projections or only a seed."""

import json
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from networks import llama, random_config, token_ids
from randlora import RandLoraConfig
from randlora.errors import CheckpointError, OutputError
from randlora.methods.randlora.convert import convert
from randlora.training.inspection import inspect_adapter


class Net(nn.Module):
    """A wide, a tall and a square layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Linear(48, 80), nn.Linear(80, 24), nn.Linear(24, 24)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


X = torch.randn(6, 48, generator=torch.Generator().manual_seed(5))
SPARSITY = {"dense": {}, "sparse": {"sparse": True}, "very_sparse": {"very_sparse": True}}


def peft_adapter(folder, sparsity="dense", change=None, **options):
    """Save a PEFT RandLora adapter with random λ, γ; return its output."""
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns about projections that are not saved
        config = peft.RandLoraConfig(
            r=5,
            randlora_alpha=4,
            target_modules=["a", "b", "c"],
            projection_prng_key=3,
            init_weights=False,
            **SPARSITY[sparsity],
            **options,
        )
        model = peft.get_peft_model(Net(), config)
    if change is not None:
        with torch.no_grad():
            for projections in (model.base_model.randlora_A, model.base_model.randlora_B):
                change(projections["default"])
    model.save_pretrained(folder)
    return model(X)


def assert_same(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("sparsity", SPARSITY)
def test_from_peft_and_back(tmp_path, sparsity, stored, low_cpu_mem_usage):
    expected = peft_adapter(tmp_path / "peft", sparsity, save_projection=stored)
    convert(tmp_path / "peft", tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(Net(), tmp_path / "ours", low_cpu_mem_usage=low_cpu_mem_usage)
    assert_same(model(X), expected)
    tensors = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert {name.rsplit(".", 1)[1] for name in tensors} == {"randlora_lambda", "randlora_gamma"}

    model.save_pretrained(tmp_path / "again")
    convert(tmp_path / "again", tmp_path / "back")
    back = peft.PeftModel.from_pretrained(Net(), tmp_path / "back")
    assert back.peft_config["default"].peft_type == peft.PeftType.RANDLORA
    assert_same(back(X), expected)


@pytest.mark.parametrize("sparsity", SPARSITY)
def test_projections_that_no_draw_reproduces_stay_stored(tmp_path, sparsity):
    expected = peft_adapter(tmp_path / "peft", sparsity, change=lambda projection: projection.mul_(1.01))
    convert(tmp_path / "peft", tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(Net(), tmp_path / "ours", is_trainable=True)
    assert_same(model(X), expected)
    model.save_pretrained(tmp_path / "again")
    assert_same(peft.PeftModel.from_pretrained(Net(), tmp_path / "again")(X), expected)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert {inspect_adapter(tmp_path / name).trained for name in ("peft", "ours", "again")} == {trained}
    convert(tmp_path / "ours", tmp_path / "back")
    assert_same(peft.PeftModel.from_pretrained(Net(), tmp_path / "back")(X), expected)


def test_of_chosen_blocks_the_layers_stay_the_same(tmp_path):
    named = [f"model.layers.{block}.self_attn.q_proj" for block in (0, 1)]  # full names hold for PEFT, whatever block
    theirs = peft.RandLoraConfig(r=3, target_modules=named, layers_to_transform=[0], init_weights=False)
    model = peft.get_peft_model(llama(), theirs)
    model.save_pretrained(tmp_path / "peft")
    convert(tmp_path / "peft", tmp_path / "ours")
    loaded = peft.PeftModel.from_pretrained(llama(), tmp_path / "ours")
    torch.testing.assert_close(loaded(token_ids()).logits, model(token_ids()).logits, rtol=1e-4, atol=1e-4)

    # An expression holds for PEFT whatever block.
    model = peft.get_peft_model(
        llama(), random_config(bases="peft", target_modules=r".*[qk]_proj", layers_to_transform=1)
    )
    model.save_pretrained(tmp_path / "chosen")
    convert(tmp_path / "chosen", tmp_path / "back")
    back = peft.PeftModel.from_pretrained(llama(), tmp_path / "back")
    torch.testing.assert_close(back(token_ids()).logits, model(token_ids()).logits, rtol=1e-4, atol=1e-4)
    layers = [name for name, module in back.get_base_model().named_modules() if hasattr(module, "randlora_lambda")]
    assert layers == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"]


def test_the_way_back_works_in_a_process_without_randlora(tmp_path, without_randlora):
    expected = peft_adapter(tmp_path / "peft")
    convert(tmp_path / "peft", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back")
    torch.save(dict(Net().state_dict()), tmp_path / "net.pt")
    printed = without_randlora(
        """
import sys, torch, peft
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(48, 80), nn.Linear(80, 24), nn.Linear(24, 24)
    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))
net = Net()
net.load_state_dict(torch.load("net.pt", weights_only=True))
x = torch.randn(6, 48, generator=torch.Generator().manual_seed(5))
print(peft.PeftModel.from_pretrained(net, "back")(x).abs().sum().item())
assert "randlora" not in sys.modules
"""
    )
    assert float(printed.splitlines()[-1]) == pytest.approx(expected.abs().sum().item(), rel=1e-5)


def test_training_continues_after_conversion(tmp_path):
    peft_adapter(tmp_path / "peft")
    convert(tmp_path / "peft", tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(Net(), tmp_path / "ours", is_trainable=True)
    model(X).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_what_cannot_be_converted(tmp_path):
    import randlora

    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        convert(tmp_path, tmp_path / "out")
    config = randlora.RandLoraConfig(r=4, target_modules=["a"], bases="structured")
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path / "structured")
    with pytest.raises(CheckpointError, match="bases='peft'"):
        convert(tmp_path / "structured", tmp_path / "out")
    peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["a"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(CheckpointError, match="LORA"):
        convert(tmp_path / "lora", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_files_and_full_folders(tmp_path):
    peft_adapter(tmp_path / "peft")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="full"):
        convert(tmp_path / "peft", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    weights = tmp_path / "peft" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        convert(tmp_path / "peft", tmp_path / "out")
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="peft_type"):
        convert(tmp_path / "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_deleted_adapters_stored_projections_go_with_it(tmp_path):
    peft_adapter(tmp_path / "peft", change=lambda projection: projection.mul_(1.01))
    convert(tmp_path / "peft", tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(Net(), tmp_path / "ours")
    model.load_adapter(tmp_path / "ours", "other")
    expected = model(X)
    model.delete_adapter("other")
    assert not [name for name in model.state_dict() if "other" in name]
    assert torch.equal(model(X), expected)


def test_a_new_adapter_with_pefts_bases_starts_as_pefts():
    ours = peft.get_peft_model(Net(), RandLoraConfig(r=4, bases="peft", target_modules=["a", "b", "c"]))
    theirs = peft.get_peft_model(Net(), peft.RandLoraConfig(r=4, target_modules=["a", "b", "c"]))
    for name in "abc":
        mine, stock = (getattr(model.base_model.model, name) for model in (ours, theirs))
        for tensors in ("randlora_lambda", "randlora_gamma"):
            found, wanted = getattr(mine, tensors)["default"].weight, getattr(stock, tensors)["default"]
            assert found.unique().tolist() == wanted.unique().tolist()
            assert found.numel() == wanted.numel()
