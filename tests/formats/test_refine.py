"""Going on from a LoRA: PEFT's own merge, a fresh adapter on the same layers, nothing changed on refusal."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from networks import MODELS, Net, gpt2, llama, rows, token_ids
from randlora import RandLoraConfig, load_adapter, merge_lora, refine_lora
from randlora.errors import CheckpointError, ConfigError, LayerError
from randlora.methods import LoraXsConfig, register_methods

WEIGHTS = "adapter_model.safetensors"


def save_lora(folder, base=Net, **options):
    torch.manual_seed(4)
    options = {"r": 3, "target_modules": ["a", "c"], "init_lora_weights": False, **options}
    model = peft.get_peft_model(base(), peft.LoraConfig(**options)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}}])
@pytest.mark.parametrize("name", MODELS)
def test_the_fresh_adapter_starts_where_the_lora_stopped(tmp_path, name, options):
    build, targets, task = MODELS[name]
    lora = save_lora(tmp_path / "lora", build, target_modules=targets, task_type=task, **options)
    expected = lora(token_ids()).logits
    model = refine_lora(build(), tmp_path / "lora", RandLoraConfig(r=4)).eval()
    torch.testing.assert_close(model(token_ids()).logits, expected, rtol=1e-5, atol=1e-6)
    adapted = {n.removesuffix(".randlora_gamma.default.weight") for n, _ in model.named_parameters() if "gamma" in n}
    assert adapted == {n for n, module in lora.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)}
    merged = lora.merge_and_unload().state_dict()
    ours = {n.replace(".base_layer", ""): t for n, t in model.get_base_model().state_dict().items()}
    heads = {n: n.replace("classifier", "classifier.original_module") for n in merged}
    assert all(torch.equal(ours[n if n in ours else heads[n]], tensor) for n, tensor in merged.items())


def test_the_fresh_adapter_is_where_peft_had_the_lora_with_chosen_blocks(tmp_path):
    named = [f"model.layers.{block}.self_attn.q_proj" for block in (0, 1)]  # full names hold for PEFT, whatever block
    lora = save_lora(tmp_path / "lora", llama, target_modules=named, layers_to_transform=[0])
    assert [n for n, module in lora.get_base_model().named_modules() if hasattr(module, "lora_A")] == named
    model = refine_lora(llama(), tmp_path / "lora", RandLoraConfig(r=4)).eval()
    assert [n for n, module in model.get_base_model().named_modules() if hasattr(module, "kind")] == named


def test_it_trains_and_is_read_again_on_the_merged_weights(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    base = lambda: type(llama()).from_pretrained(tmp_path / "base").eval()  # noqa: E731
    save_lora(tmp_path / "lora", base, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    model = refine_lora(base(), tmp_path / "lora", RandLoraConfig(r=4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        losses.append(model(token_ids(), labels=token_ids()).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_adapter(merge_lora(base(), tmp_path / "lora"), tmp_path / "adapter")
    torch.testing.assert_close(loaded(token_ids()).logits, model.eval()(token_ids()).logits)
    with pytest.raises(OSError, match="merged with the LoRA"):  # never on the plain base model unawares
        peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")


def test_a_head_that_was_trained_whole_goes_on_training(tmp_path):
    lora = save_lora(tmp_path / "lora", modules_to_save=["b"])
    with torch.no_grad():
        lora.base_model.model.b.modules_to_save["default"].weight.add_(1)
    lora.save_pretrained(tmp_path / "lora")
    model = refine_lora(Net(), tmp_path / "lora", RandLoraConfig(r=4))
    torch.testing.assert_close(model(rows()), lora(rows()))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("b.modules_to_save" in name for name in trained)


def refused(error, match, lora, model=None, config=None):
    """The call is refused and has changed no weight and no module."""
    model = Net() if model is None else model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=match):
        refine_lora(model, lora, config or RandLoraConfig(r=4))
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_no_lora(tmp_path):
    refused(CheckpointError, r"adapter_config\.json", tmp_path / "absent")
    config = RandLoraConfig(r=4, target_modules=["a"])
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path / "ours")
    refused(CheckpointError, "expected a LoRA, got RANDLORA_FULLRANK", tmp_path / "ours")
    save_lora(tmp_path / "lora", alora_invocation_tokens=[1])
    refused(CheckpointError, "aLoRA", tmp_path / "lora")


def test_a_lora_that_does_not_fit(tmp_path):
    save_lora(tmp_path / "lora")
    other = nn.ModuleDict({"a": nn.Linear(13, 30), "c": nn.Linear(11, 11)})
    refused(CheckpointError, "29|30 outputs", tmp_path / "lora", other)
    refused(CheckpointError, "'c'.*another base model", tmp_path / "lora", nn.ModuleDict({"a": nn.Linear(13, 29)}))
    save_lora(tmp_path / "embedding", gpt2, target_modules=["wte"])
    refused(LayerError, "Embedding", tmp_path / "embedding", gpt2())
    save_lora(tmp_path / "lora")
    model = peft.get_peft_model(Net(), RandLoraConfig(r=4, target_modules=["a"]))
    refused(ConfigError, "a base model", tmp_path / "lora", model)
    refused(ConfigError, "target_modules", tmp_path / "lora", config=RandLoraConfig(target_modules=["a"]))
    refused(ConfigError, "randlora's", tmp_path / "lora", config=peft.VeraConfig())
    register_methods()
    refused(LayerError, "'c'.*at least r=12", tmp_path / "lora", config=LoraXsConfig(r=12))


def test_damaged_files(tmp_path):
    save_lora(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    tensors[name][0, 0] = torch.inf
    save_file(tensors, tmp_path / WEIGHTS)
    refused(CheckpointError, "lora_B.*NaN or infinity", tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:100])
    refused(CheckpointError, WEIGHTS, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps([]))
    refused(CheckpointError, "peft_type", tmp_path)
