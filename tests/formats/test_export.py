"""Adapters as LoRA: exact at full rank, the best of its rank below, read by stock PEFT."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from networks import MODELS, Net, random_config, rows, token_ids
from randlora import export_lora
from randlora.errors import ConfigError, LayerError, OutputError
from randlora.formats.export import truncated_svd


def adapted(base=Net, targets=("a", "b", "c"), **options):
    return peft.get_peft_model(base(), random_config(target_modules=list(targets), **options)).eval()


def delta_weights(model):
    """Name in the base model -> ΔW in float64, laid out as the weight."""
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    return {n.removeprefix("base_model.model."): m.get_delta_weight("default").double() for n, m in layers.items()}


@pytest.mark.parametrize("name", MODELS)
def test_at_full_rank_the_outputs_are_the_same(tmp_path, name):
    build, targets, task = MODELS[name]
    # gpt2 has Conv1D layers; bert a head that was trained whole; all layers have the smaller side 24 but llama's k_proj
    targets = [target for target in targets if target != "k_proj"]
    model = adapted(build, targets, r=5, task_type=task)
    with torch.no_grad():
        if task == "SEQ_CLS":
            model.base_model.model.classifier.weight.add_(1)
    exported = export_lora(model, 24, tmp_path / "lora")
    assert all(layer.energy == pytest.approx(1, abs=1e-6) for layer in exported.layers)
    lora = peft.PeftModel.from_pretrained(build(), tmp_path / "lora").eval()
    assert lora.peft_config["default"].lora_alpha == lora.peft_config["default"].r == 24
    expected = model(token_ids()).logits
    assert (lora(token_ids()).logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (build()(token_ids()).logits - expected).abs().max() > 1e-2


@pytest.mark.parametrize(("targets", "blocks"), [(["b", "c"], [0, 2]), (["0.c", "1.c"], 1), (r".*[bc]", [1])])
def test_the_lora_is_on_the_layers_of_the_chosen_blocks(tmp_path, targets, blocks):
    def build():  # blocks at the root, where PEFT finds none
        return nn.Sequential(*(Net() for _ in range(3)))

    config = random_config(target_modules=targets, layers_to_transform=blocks)
    model = peft.get_peft_model(build(), config)
    with torch.no_grad():
        expected = [block(rows()) for block in model.get_base_model()]
    export_lora(model, 11, tmp_path / "lora")
    lora = peft.PeftModel.from_pretrained(build(), tmp_path / "lora").get_base_model()
    for block, wanted in zip(lora, expected, strict=True):
        torch.testing.assert_close(block(rows()), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bases", ["structured", "uniform", "peft"])
def test_the_energy_is_that_of_the_exact_decomposition(tmp_path, bases):
    model = adapted(bases=bases)
    exported = export_lora(model, 3, tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    deltas = delta_weights(model)
    assert [layer.name for layer in exported.layers] == list(deltas)
    for layer in exported.layers:
        delta = deltas[layer.name]
        values = torch.linalg.svdvals(delta).square()
        assert layer.energy == pytest.approx((values[:3].sum() / values.sum()).item(), rel=1e-5)
        A, B = (tensors[f"base_model.model.{layer.name}.lora_{side}.weight"].double() for side in "AB")
        missed = (delta - B @ A).square().sum() / delta.square().sum()
        assert 1 - layer.energy == pytest.approx(missed.item(), rel=1e-4)
    assert exported.worst.energy == min(layer.energy for layer in exported.layers)
    assert exported.worst.energy <= exported.mean_energy < 1


def test_the_randomized_decomposition_is_as_good_and_repeats_itself():
    matrix = torch.randn(1100, 1200, generator=torch.Generator().manual_seed(0))  # the flattest spectrum there is
    before = torch.random.get_rng_state()
    U, S, V = truncated_svd(matrix, 4)
    assert torch.equal(torch.random.get_rng_state(), before)
    exact = torch.linalg.svdvals(matrix)[:4].square().sum()
    kept = matrix.square().sum() - (matrix - (U * S) @ V.T).square().sum()
    assert S.square().sum() == pytest.approx(exact.item(), rel=1e-3)
    assert kept == pytest.approx(exact.item(), rel=1e-2)  # a difference of numbers a hundred times as large
    assert all(torch.equal(*pair) for pair in zip(truncated_svd(matrix, 4), (U, S, V), strict=True))


def test_an_untrained_layer_keeps_all_of_nothing(tmp_path):
    model = adapted(init_weights=True)
    with torch.no_grad():
        model.base_model.model.c.randlora_gamma["default"].weight.fill_(0.5)
    exported = export_lora(model, 2, tmp_path / "lora")
    energies = {layer.name: layer.energy for layer in exported.layers}
    assert energies["a"] == energies["b"] == 1.0
    assert 0 < energies["c"] < 1
    lora = peft.PeftModel.from_pretrained(Net(), tmp_path / "lora", is_trainable=True)
    assert lora.base_model.model.a.get_delta_weight("default").abs().max() == 0
    lora(rows()).sum().backward()
    assert lora.base_model.model.a.lora_B["default"].weight.grad.abs().max() > 0


def test_other_methods_of_peft(tmp_path):
    config = peft.LoraConfig(r=6, target_modules=["a", "b"], init_lora_weights=False)
    model = peft.get_peft_model(Net(), config).eval()
    exported = export_lora(model, 6, tmp_path / "lora")
    assert all(layer.energy == pytest.approx(1, abs=1e-6) for layer in exported.layers)
    torch.testing.assert_close(peft.PeftModel.from_pretrained(Net(), tmp_path / "lora")(rows()), model(rows()))
    rotation = peft.get_peft_model(Net(), peft.OFTConfig(target_modules=["b"], oft_block_size=0, r=1))
    with pytest.raises(LayerError, match=r"b: expected an update that adds a ΔW .*, got Linear of OFT \(merge the ad"):
        export_lora(rotation, 2, tmp_path / "none")


def test_one_of_several_adapters_with_its_own_layers_and_head(tmp_path):
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    model = peft.get_peft_model(net, random_config(target_modules=["0"]))
    model.add_adapter("other", random_config(target_modules="1|0", modules_to_save=["2"]))
    with torch.no_grad():
        model.base_model.model[2].modules_to_save["other"].weight.add_(1)
    exported = export_lora(model, 8, tmp_path / "lora", "other")
    assert [layer.name for layer in exported.layers] == ["0", "1"]
    model.set_adapter("other")
    x = torch.randn(4, 8)
    expected = model(x)
    fresh = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    fresh.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    torch.testing.assert_close(peft.PeftModel.from_pretrained(fresh, tmp_path / "lora")(x), expected)


@pytest.mark.parametrize(
    ("options", "rank", "adapter", "message"),
    [
        ({}, 12, "default", r"b: expected a rank of at most 11"),
        ({}, 0, "default", "rank: expected an integer of 1 or more, got 0"),
        ({}, 2.5, "default", "rank"),
        ({}, 2, "other", "one of 'default', got 'other'"),
        ({"bias": "all"}, 2, "default", "bias"),
    ],
)
def test_refusals_write_nothing(tmp_path, options, rank, adapter, message):
    with pytest.raises((ConfigError, LayerError), match=message):
        export_lora(adapted(**options), rank, tmp_path / "lora", adapter)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "kind"), [({"use_dora": True}, "DoraLinear"), ({"alora_invocation_tokens": [1]}, "ALoraLinear")]
)
def test_variants_of_lora_that_do_more_than_add_are_refused(tmp_path, options, kind):
    model = peft.get_peft_model(Net(), peft.LoraConfig(r=2, target_modules=["a"], **options))
    with pytest.raises(LayerError, match=f"expected an update that adds a ΔW to the weight, got {kind}Variant of LORA"):
        export_lora(model, 2, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_what_is_not_finite_not_an_adapter_or_not_empty(tmp_path):
    model = adapted()
    with torch.no_grad():
        model.base_model.model.c.randlora_gamma["default"].weight[0, 0] = torch.nan
    with pytest.raises(LayerError, match="finite"):
        export_lora(model, 2, tmp_path / "lora")
    with pytest.raises(ConfigError, match="PeftModel"):
        export_lora(Net(), 2, tmp_path / "lora")
    assert not list(tmp_path.iterdir())
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine").write_text("keep")
    with pytest.raises(OutputError):
        export_lora(adapted(), 2, tmp_path / "lora")
    assert [path.name for path in (tmp_path / "lora").iterdir()] == ["mine"]


@pytest.mark.slow
def test_stock_peft_loads_it_in_a_process_without_randlora(tmp_path, without_randlora):
    build, targets, task = MODELS["gpt2"]
    build().save_pretrained(tmp_path / "base")
    model = adapted(build, targets, task_type=task)
    export_lora(model, 24, tmp_path / "lora")
    printed = without_randlora(
        """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "lora").eval()
ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(3))
print(model(ids).logits.abs().sum().item())
assert "randlora" not in sys.modules
"""
    )
    expected = model(token_ids()).logits.abs().sum().item()
    assert float(printed.splitlines()[-1]) == pytest.approx(expected, rel=1e-5)
