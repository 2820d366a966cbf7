"""ΔW of adapters and full fine-tunings against what a merge adds, and weights left as they were."""

from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from every_method import MERGEABLE, config, fill
from randlora.analysis.deltas import AdapterDeltas, deltas_of
from randlora.analysis.spectra import rank_of_all
from randlora.analysis.spectrum import spectrum_of
from randlora.errors import CheckpointError, LayerError
from randlora.training import MethodConfig, train
from randlora.training.adapted import load_adapted
from randlora.training.merge import merge_adapter

PEFT = {
    "lora": peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["0", "1", "2"]),
    "dora": peft.LoraConfig(r=2, init_lora_weights=False, use_dora=True, target_modules=["0", "1"]),
    "loha": peft.LoHaConfig(r=2, init_weights=False, target_modules=["0"]),
    "vera": peft.VeraConfig(r=2, init_weights=False, target_modules=["0"]),
    "oft": peft.OFTConfig(r=2, oft_block_size=0, init_weights=False, target_modules=["0"]),
}


def _net():
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Linear(10, 7), Conv1D(5, 7)).double()


@pytest.mark.parametrize("method", PEFT)
def test_peft_tuners(method):
    model = peft.get_peft_model(_net(), PEFT[method])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "magnitude" not in name else 0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = {layer.name: layer for _, layers in AdapterDeltas(model) for layer in layers}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(getattr(module, "merged", False) for module in model.modules())
    base = {name: module.get_base_layer() for name, module in model.named_modules() if name.endswith(tuple(found))}
    weights = {name: layer.weight.clone() for name, layer in found.items()}
    merged = model.merge_and_unload()
    assert set(found) <= {name for name, _ in merged.named_modules()}
    assert base
    for name, layer in found.items():
        stored = merged.get_submodule(name).weight
        after = stored.T if isinstance(merged.get_submodule(name), Conv1D) else stored
        torch.testing.assert_close(layer.delta, after - weights[name], atol=1e-6, rtol=1e-5)
        assert layer.delta.abs().max() > 0


@pytest.mark.parametrize("method", PEFT)
def test_of_a_base_in_16_bits_the_rounding_of_a_merge_is_no_part(method):
    torch.manual_seed(1)
    model = peft.get_peft_model(_net().bfloat16(), PEFT[method])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.mul_(0.05)  # as small as after a training
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = [layer for _, layers in AdapterDeltas(model) for layer in layers]
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name])
    for layer, wanted in zip(
        found, (layer for _, layers in AdapterDeltas(model.float()) for layer in layers), strict=True
    ):
        torch.testing.assert_close(layer.weight, wanted.weight, check_dtype=False)
        assert (layer.delta - wanted.delta).norm() <= 1e-4 * wanted.delta.norm()


@pytest.mark.parametrize("method", MERGEABLE)
def test_every_method_of_the_catalogue(method):
    net = torch.nn.Sequential(torch.nn.Linear(8, 12)).double()
    model = fill(peft.get_peft_model(net, config(method, target_modules=["0"])))
    ((_, (layer,)),) = AdapterDeltas(model)
    before = model.base_model.model[0].base_layer.weight.detach().clone()
    torch.testing.assert_close(layer.delta, model.merge_and_unload()[0].weight - before)
    assert layer.delta.abs().max() > 0


@pytest.mark.parametrize(("method", "groups"), [("lora", 1), ("randlora", 1), ("randlora", 2)])
def test_a_kernel_is_a_matrix(method, groups):
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, groups=groups)).double()
    options = {"target_modules": ["0"], "r": 2}
    adapter = peft.LoraConfig(**options, init_lora_weights=False) if method == "lora" else config(method, **options)
    model = fill(peft.get_peft_model(net, adapter))
    ((_, layers),) = AdapterDeltas(model)
    before = model.base_model.model[0].base_layer.weight.detach().clone()
    added = (model.merge_and_unload()[0].weight - before).flatten(1)
    torch.testing.assert_close(torch.cat([layer.delta for layer in layers]), added, check_dtype=False)
    assert all(layer.weight.shape == layer.delta.shape and layer.delta.dim() == 2 for layer in layers)


def test_a_layer_that_peft_cannot_merge_is_named():
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, groups=2))
    model = peft.get_peft_model(net, peft.LoraConfig(target_modules=["0"], r=2))
    with pytest.raises(LayerError, match="Conv2d: expected a layer that can be merged"):
        list(AdapterDeltas(model))
    with pytest.raises(LayerError, match="layers that can be merged"):
        merge_adapter(model)


@pytest.mark.parametrize(
    ("layer", "rank"),
    [
        (torch.nn.Linear(40, 60), 5),
        (torch.nn.Conv1d(8, 20, 3), 4),
        (torch.nn.Conv2d(8, 20, 3), 4),
        (torch.nn.Embedding(50, 24), 3),
    ],
)
def test_the_rank_that_would_have_been_enough_is_that_of_a_planted_update(layer, rank):
    torch.manual_seed(0)
    config_ = peft.LoraConfig(r=rank, init_lora_weights=False, target_modules=["0"])
    spectra = [spectrum_of(part.delta) for _, parts in _filled(layer, config_) for part in parts]
    assert rank_of_all(spectra, 1.0) == rank


def test_the_rank_that_would_have_been_enough_for_attention():
    torch.manual_seed(0)
    config_ = config("randlora", r=3, num_bases=1, target_modules=["0"])
    spectra = [
        spectrum_of(part.delta) for _, parts in _filled(torch.nn.MultiheadAttention(16, 2), config_) for part in parts
    ]
    assert len(spectra) > 1
    assert [spectrum.rank_for(1 - 1e-9)[0] for spectrum in spectra] == [3] * len(spectra)


def _filled(layer, config_):
    return AdapterDeltas(fill(peft.get_peft_model(torch.nn.Sequential(layer.double()), config_)))


@pytest.mark.slow
def test_full_fine_tuning_of_kernels(image_config):
    train(replace(image_config, method=MethodConfig(name="full")))
    found = [layer for _, layers in deltas_of(image_config.output) for layer in layers]
    assert any("patch_embedding" in layer.name for layer in found)
    assert all(layer.weight.shape == layer.delta.shape and layer.delta.dim() == 2 for layer in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: dict(list(tensors.items())[:3]), "the trained parameters of this model"),
        (lambda tensors: {name: part / 0 for name, part in tensors.items()}, "finite numbers"),
        (lambda tensors: {name: part[:1] for name, part in tensors.items()}, "shape"),
    ],
)
def test_damaged_weights_of_a_full_fine_tuning_are_refused(damage, message, text_config):
    train(replace(text_config, method=MethodConfig(name="full")))
    path = f"{text_config.output}/adapter/trained.safetensors"
    save_file({name: part.contiguous() for name, part in damage(load_file(path)).items()}, path)
    with pytest.raises(CheckpointError, match=message):
        deltas_of(text_config.output)


@pytest.mark.slow
def test_full_fine_tuning_of_a_base_that_is_elsewhere(text_config, bert, llama, tmp_path):
    train(replace(text_config, method=MethodConfig(name="full")))
    (expected, *_) = (layer.delta for _, layers in deltas_of(text_config.output) for layer in layers)
    base = AutoModel.from_pretrained(bert)
    with torch.no_grad():
        base.embeddings.word_embeddings.weight.add_(1.0)
    base.save_pretrained(tmp_path / "moved")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "moved")
    (found, *_) = (
        layer.delta for _, layers in deltas_of(text_config.output, str(tmp_path / "moved")) for layer in layers
    )
    torch.testing.assert_close(found, expected - 1.0, atol=1e-6, rtol=0)
    with pytest.raises(CheckpointError, match="base model of the training"):
        deltas_of(text_config.output, str(llama))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_the_rounding_of_a_quantized_base_is_no_part_of_what_was_trained(method, sft_config):
    pytest.importorskip("bitsandbytes")
    train(replace(sft_config, method=MethodConfig(name=method, r=2), quantization="nf4"))
    adapted, _ = load_adapted(sft_config.output)
    layer = adapted.base_model.model.model.layers[0].mlp.up_proj
    (found,) = (part for name, (part,) in deltas_of(sft_config.output) if name == "model.layers.0.mlp.up_proj")
    added = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    weight = found.weight + added
    if method == "dora":
        weight = weight * (layer.lora_magnitude_vector["default"].weight / weight.norm(dim=1)).unsqueeze(1)
    torch.testing.assert_close(found.delta.float(), weight - found.weight, atol=1e-5, rtol=1e-4)
    if method == "dora":
        with pytest.raises(LayerError, match="not quantized"):
            list(AdapterDeltas(adapted))


def test_prompts_change_no_weight(llama):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama)
    prompts = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    with pytest.raises(CheckpointError, match="changes no weight"):
        AdapterDeltas(peft.get_peft_model(model, prompts))


@pytest.mark.slow
def test_full_fine_tuning_is_the_difference_of_the_files(text_config, bert):
    method = MethodConfig(name="full")
    train(replace(text_config, method=method))
    base = load_file(bert / "model.safetensors")
    trained = load_file(f"{text_config.output}/adapter/trained.safetensors")
    found = {layer.name: layer for _, layers in deltas_of(text_config.output) for layer in layers}
    assert not any("classifier" in name for name in found)
    assert sum("embeddings" in name for name in found) == 3
    for name, layer in found.items():
        (key,) = [key for key in base if name.endswith(key.removesuffix(".weight")) and key.endswith(".weight")]
        assert torch.equal(layer.delta, trained[f"{name}.weight"].double() - base[key].double())
