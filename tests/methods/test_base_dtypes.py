"""Adapters in the singular vectors of the base weight, loaded where the same weights are in another dtype."""

import copy
import json

import peft
import pytest
import torch
from torch import nn

from every_method import adapted, config, fill
from networks import Net, rows
from randlora.bases.spectral import decompose
from randlora.errors import ConfigError

METHODS = ["spectral", "svft", "lora_xs"]
WIDE = {
    "spectral": {"r": 16, "alpha": 8.0},
    "svft": {"pattern": "top_k", "off_diagonals": 1},
    "lora_xs": {"r": 32},
}


def wide(dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(128, 160, bias=False)).to(dtype)


def updates(model):
    return model.base_model.model[0].get_delta_weight("default").detach().double()


def change(a, b):
    return ((a - b).norm() / b.norm()).item()


def save_first_version(model, folder):
    """As an adapter of the time before its config had a version."""
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    fields = json.loads(file.read_text())
    del fields["decomposition"]
    file.write_text(json.dumps(fields))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("trained_in", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("loaded_in", [torch.float32, torch.bfloat16, torch.float64])
def test_the_update_is_the_same_in_float32_and_bfloat16(method, trained_in, loaded_in, tmp_path, recwarn):
    base = wide().to(trained_in)
    model = fill(peft.get_peft_model(base, config(method, target_modules=["0"], **WIDE[method])))
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(wide().to(loaded_in), tmp_path)
    # Factors are kept, and what is trained is cast, in 8 bits: three in a product.
    assert change(updates(loaded), updates(model)) < 8e-3
    assert not [w for w in recwarn if "base weights" in str(w.message)]
    cast = copy.deepcopy(model).to(loaded_in)
    assert change(updates(cast), updates(model)) < 8e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_model_stored_in_float16_is_the_same_in_all_dtypes(method, tmp_path, recwarn):
    stored = wide(torch.float16)
    model = fill(peft.get_peft_model(copy.deepcopy(stored).float(), config(method, target_modules=["0"])))
    model.save_pretrained(tmp_path)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(stored).to(dtype), tmp_path)
        assert change(updates(loaded), updates(model)) < 8e-3
    assert not [w for w in recwarn if "base weights" in str(w.message)]


@pytest.mark.parametrize("method", METHODS)
def test_a_float32_model_loaded_in_float16_warns_and_says_what_to_do(method, tmp_path):
    model = fill(peft.get_peft_model(wide(), config(method, target_modules=["0"], **WIDE[method])))
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"not the base weights.*they are in float16.*convert or quantize it then"):
        peft.PeftModel.from_pretrained(wide(torch.float16), tmp_path)
    converted = peft.PeftModel.from_pretrained(wide(), tmp_path).half()  # what it says
    assert change(updates(converted), updates(model)) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_what_was_learned_at_width_512_is_not_lost(method, tmp_path):
    """Fit a random change of a weight by least squares, and compare what is explained of it in bfloat16."""
    torch.manual_seed(0)
    weight, target = torch.randn(2, 512, 512) / 512**0.5
    base = nn.Sequential(nn.Linear(512, 512, bias=False))
    base[0].weight.data = weight
    options = {"spectral": {"r": 64, "alpha": 64.0}, "svft": {"off_diagonals": 8}, "lora_xs": {"r": 128}}[method]
    model = peft.get_peft_model(base, config(method, target_modules=["0"], **options))
    layer = model.base_model.model[0]
    trained = [p for p in model.parameters() if p.requires_grad][-1:]
    # ΔW is linear in γ, M and R: a step along the gradient, of the best length.
    (-(layer.get_delta_weight("default") - target).square().sum() / 2).backward()
    with torch.no_grad():
        (only,) = trained
        only.copy_(only.grad)
        delta = layer.get_delta_weight("default")
        only.mul_((delta * target).sum() / delta.square().sum())
    learned = (target - updates(model)).square().sum()
    assert learned < 0.995 * target.square().sum()
    model.save_pretrained(tmp_path)
    other = nn.Sequential(nn.Linear(512, 512, bias=False)).bfloat16()
    other[0].weight.data = weight.bfloat16()
    loaded = peft.PeftModel.from_pretrained(other, tmp_path)
    found = (target - updates(loaded)).square().sum()
    lost = (found - learned) / (target.square().sum() - learned)
    assert abs(lost) < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_of_the_first_version_has_its_own_vectors(method, tmp_path, recwarn):
    base = wide()
    own = config(method, target_modules=["0"], base_fingerprint="0" * 16)  # as of a saved one
    model = fill(peft.get_peft_model(base, own))
    W = base[0].base_layer.weight
    first = decompose(W, 3, version=1)
    assert torch.equal(first.U.abs().argmax(dim=0), torch.where(first.U > 0, first.U, 0).argmax(dim=0))
    torch.testing.assert_close(first.sigma, torch.linalg.svdvals(W.double())[:3])
    recwarn.clear()
    save_first_version(model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(wide(), tmp_path)
    assert torch.equal(updates(loaded), updates(model))
    assert loaded.peft_config["default"].decomposition is None  # and is saved as one of the first version again
    assert not [w for w in recwarn if "base weights" in str(w.message) or "earlier version" in str(w.message)]
    with pytest.warns(UserWarning, match=r"earlier version.*not bfloat16.*dtype of the training"):
        peft.PeftModel.from_pretrained(wide(torch.bfloat16), tmp_path)


def test_a_version_to_come_is_refused(tmp_path):
    adapted("svft").save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace('"decomposition": 2', '"decomposition": 9'))
    with pytest.raises(ConfigError, match="decomposition: expected an integer from 1 to 2, got 9"):
        peft.PeftModel.from_pretrained(Net(), tmp_path)


def test_in_bfloat16_the_outputs_are_the_adapters(tmp_path):
    for method in METHODS:
        model = adapted(method)
        model.save_pretrained(tmp_path / method)
        loaded = peft.PeftModel.from_pretrained(Net().bfloat16(), tmp_path / method)
        torch.testing.assert_close(loaded(rows().bfloat16()).float(), model(rows()), rtol=0.1, atol=0.1)
