"""Every method against its paper's equation written out, and what users of PEFT expect of each."""

import copy
from dataclasses import dataclass

import accelerate
import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from every_method import adapted, config, fill, layers
from literal import hybrid, hydralora, lora_xs, nola, pranc, randlora_a, spectral, svft
from networks import MODELS, Net, rows, token_ids
from randlora.errors import CheckpointError, ConfigError, LayerError


@dataclass
class Method:
    reference: object  # (x, W₀, trained tensors) -> the update's output
    trained: object  # (out, in) -> trained numbers, the paper's formula
    rate: float  # a learning rate for the toy target


METHODS = {
    "nola": Method(nola, lambda *_: 7 + 7, 0.3),
    "pranc": Method(pranc, lambda *_: 9, 0.1),
    "lora_xs": Method(lora_xs, lambda *_: 3 * 3, 0.05),
    "svft": Method(svft, lambda o, i: min(o, i) * 3 - 1 * 2, 0.05),
    "randlora_a": Method(randlora_a, lambda o, i: -(-min(o, i) // 3) * (3 + min(o, i)), 0.05),
    "spectral": Method(spectral, lambda o, i: -(-min(o, i) // 3) * (3 + min(o, i)), 0.05),
    "hybrid": Method(hybrid, lambda o, i: -(-min(o, i) // 3) * (3 + min(o, i)) + 2 * (o + i), 0.05),
    "hydralora": Method(hydralora, lambda o, i: 3 * i + 2 * 3 * o + 2 * i, 0.02),
}


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize(("out", "inner"), [(29, 13), (11, 29), (5, 5)])
@pytest.mark.parametrize("name", METHODS)
def test_values_and_all_gradients_are_the_papers(name, out, inner, kind):
    torch.manual_seed(1)
    base = nn.Linear(inner, out) if kind is nn.Linear else Conv1D(out, inner)
    with torch.no_grad():
        base.weight.copy_(torch.randn(base.weight.shape) / 3)
    base = base.double()
    plain = copy.deepcopy(base)
    model = fill(peft.get_peft_model(nn.Sequential(base), config(name, target_modules=["0"])))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float64 for p in trained)
    assert sum(p.numel() for p in trained) == METHODS[name].trained(out, inner)

    x = torch.randn(6, inner, dtype=torch.float64)
    weights = torch.randn(6, out, dtype=torch.float64)
    results = []
    for literal in (True, False):
        inputs = x.clone().requires_grad_()
        if literal:
            leaves = [p.detach().clone().requires_grad_() for p in trained]
            W = plain.weight.detach() if kind is nn.Linear else plain.weight.detach().T
            y = plain(inputs) + METHODS[name].reference(inputs, W, *leaves)
        else:
            leaves, y = trained, model(inputs)
        (weights * y).square().sum().backward()
        results.append([y.detach(), inputs.grad, *(leaf.grad for leaf in leaves)])
    for wanted, got in zip(*results, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_a_new_adapter_changes_next_to_nothing(name):
    model = peft.get_peft_model(Net(), config(name, target_modules=["a", "b", "c"]))
    # LoRA-XS starts with R of about 1e-5, the others with an update of exactly 0.
    tolerance = 1e-3 if name == "lora_xs" else 0
    torch.testing.assert_close(model(rows()), Net()(rows()), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_the_checkpoint_holds_the_trained_numbers_and_gives_the_same_bits(name, tmp_path):
    model = adapted(name)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(t.numel() for t in saved.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.equal(loaded(rows()), model(rows()))
    assert torch.equal(copy.deepcopy(loaded)(rows()), model(rows()))
    loaded.load_adapter(tmp_path, "again", low_cpu_mem_usage=True)
    loaded.set_adapter("again")
    assert torch.equal(loaded(rows()), model(rows()))


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_of_another_size_is_refused(name, tmp_path):
    adapted(name).save_pretrained(tmp_path)
    other = Net()
    other.a = nn.Linear(13, 7)
    other.b = nn.Linear(7, 11)
    if name in ("nola", "pranc", "lora_xs"):  # whose trained shapes are the same for every layer
        file = tmp_path / "adapter_config.json"
        text = file.read_text()
        changed = text.replace('"num_bases": 7', '"num_bases": 6').replace('"num_bases": 9', '"num_bases": 6')
        file.write_text(changed.replace('"r": 3', '"r": 2'))
        other = Net()
    with pytest.raises(CheckpointError, match=r"adapter tensor .*expected \(|layer 'a': expected shape 29x13.*7x13"):
        peft.PeftModel.from_pretrained(other, tmp_path)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", METHODS)
def test_a_transformer_in_bfloat16_trains(name, architecture):
    build, targets, task = MODELS[architecture]
    model = peft.get_peft_model(build().bfloat16(), config(name, target_modules=targets, task_type=task)).train()
    fill(model)
    model(token_ids()).logits.float().square().mean().backward()
    trained = [p for n, p in model.named_parameters() if p.requires_grad and "modules_to_save" not in n]
    assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert model.eval().to(torch.float64)(token_ids()).logits.dtype == torch.float64


@pytest.mark.parametrize("name", METHODS)
def test_an_offloaded_model_gives_the_same(name):
    model = adapted(name)
    expected = model(rows()).detach()
    offloaded = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert layers(offloaded)[0].trained("default")[0].device.type == "cpu"
    torch.testing.assert_close(offloaded(rows()), expected)


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_a_target(name):
    torch.manual_seed(0)
    model = peft.get_peft_model(nn.Sequential(nn.Linear(12, 12)), config(name, target_modules=["0"]))
    teacher = copy.deepcopy(model.base_model.model[0].base_layer)
    x = torch.randn(64, 12)
    with torch.no_grad():  # a change within each method's reach: along the largest singular pair
        U, sigma, Vh = torch.linalg.svd(teacher.weight)
        teacher.weight += 0.5 * sigma[0] * torch.outer(U[:, 0], Vh[0])
        wanted = teacher(x)
    if name in ("nola", "pranc"):  # which reach few directions, none of them known beforehand
        other = fill(copy.deepcopy(model))
        wanted = other(x).detach()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=METHODS[name].rate)
    losses = []
    for _ in range(150):
        loss = (model(x) - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hybrid", {"lora_r": 0}, "lora_r: expected an integer of 1 or more, got 0"),
        ("hybrid", {"lora_alpha": 0}, "lora_alpha: expected a number above 0"),
        ("hybrid", {"bases": "peft"}, "bases: expected other than 'peft' in a hybrid adapter"),
        ("hybrid", {"r": 0}, "r: expected an integer of 1 or more, got 0"),
        ("spectral", {"r": 0}, "r: expected an integer of 1 or more, got 0"),
        ("spectral", {"alpha": -1}, "alpha: expected a number above 0"),
        ("spectral", {"strategy": "fold"}, "strategy: expected one of .*did you mean 'folded'"),
        ("spectral", {"strategy": "folded", "dropout": 0.1}, "strategy: expected auto or factored where dropout > 0"),
        ("nola", {"num_bases": 0}, "num_bases: expected an integer of 1 or more, got 0"),
        ("nola", {"seed": -1}, "seed: expected an integer"),
        ("nola", {"alpha": 0}, "alpha: expected a number above 0"),
        ("pranc", {"num_bases": 1.5}, "num_bases: expected an integer"),
        ("lora_xs", {"r": True}, "r: expected an integer"),
        ("svft", {"pattern": "band"}, "pattern: expected one of .*did you mean 'banded'"),
        ("svft", {"off_diagonals": -1}, "off_diagonals: expected an integer of 0 or more"),
        ("hydralora", {"num_heads": 0}, "num_heads: expected"),
        ("hydralora", {"bias": "lora_only"}, "bias: expected one of none, all, hydralora_only"),
        ("svft", {"dropout": 1.0}, "dropout: expected a probability"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        config(name, **options)


@pytest.mark.parametrize("name", ["lora_xs", "spectral"])
def test_a_layer_with_fewer_singular_vectors_is_named_before_anything_changes(name):
    model = Net()
    with pytest.raises(LayerError, match=r"'b': expected sides of at least r=12"):
        peft.get_peft_model(model, config(name, r=12, target_modules=["a", "b"]))
    assert type(model.a) is nn.Linear


@pytest.mark.parametrize("name", ["lora_xs", "spectral", "svft"])
def test_singular_vectors_are_those_of_the_base_weight(name):
    model = adapted(name)
    model.merge_adapter()
    with pytest.raises(LayerError, match=r"'a': expected the base weight itself.*unmerge first"):
        model.add_adapter("second", config(name, target_modules=["a"]))
    with pytest.raises(LayerError, match="a weight in memory"), torch.device("meta"):
        peft.get_peft_model(Net(), config(name, target_modules=["a"]))
    gptq = nn.Linear(13, 29, bias=False)
    gptq.qweight, gptq.weight = gptq.weight, None
    with pytest.raises(LayerError, match="a weight that can be read"):
        peft.get_peft_model(nn.ModuleDict({"a": gptq}), config(name, target_modules=["a"]))


@pytest.mark.parametrize("name", ["lora_xs", "spectral", "svft"])
def test_loading_onto_other_base_weights_warns(name, tmp_path, recwarn):
    adapted(name).save_pretrained(tmp_path)
    recwarn.clear()
    peft.PeftModel.from_pretrained(Net().bfloat16(), tmp_path)  # the same weights in less precision
    assert not [w for w in recwarn if "base weights" in str(w.message)]
    other = Net()
    with torch.no_grad():
        other.b.weight[0, 0] += 0.1
    with pytest.warns(UserWarning, match="not the base weights"):
        peft.PeftModel.from_pretrained(other, tmp_path)
