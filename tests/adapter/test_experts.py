"""Adapters on parameters, `target_parameters`: one update per expert, in transformers' mixtures of experts."""

import accelerate
import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from kinds import KINDS, adapted_layers
from literal import delta_weight
from networks import Net, random_config, rows, token_ids
from randlora import RandLoraConfig
from randlora.errors import ConfigError, LayerError, UpdateError

TARGETS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
NEAR = {"rtol": 1e-4, "atol": 1e-4}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 50,
    "max_position_embeddings": 32,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}


def mixtral():
    torch.manual_seed(1)
    return MixtralForCausalLM(MixtralConfig(**SIZES, intermediate_size=20, num_local_experts=4)).eval()


def qwen3():
    torch.manual_seed(1)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, intermediate_size=20, moe_intermediate_size=12, num_experts=5, decoder_sparse_step=1)
    ).eval()


def adapted(build, **options):
    config = {"target_parameters": TARGETS, "task_type": "CAUSAL_LM", **options}
    return peft.get_peft_model(build(), random_config(**config)).eval()


@pytest.mark.parametrize("experts", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("build", [mixtral, qwen3])
def test_one_update_per_expert_in_a_language_model(build, experts, tmp_path):
    def model_of(build):
        model = build()
        model.set_experts_implementation(experts)
        return model

    model = adapted(lambda: model_of(build))
    found = adapted_layers(model)
    assert len(found) == 4  # two layers; target_modules stays as it is: no attention is adapted
    for name, layer in found.items():
        count, rows, columns = layer.get_base_layer().weight.shape
        n = -(-min(rows, columns) // 4)
        assert layer.randlora_lambda["default"].weight.shape == (count, n, 4), name
        assert layer.randlora_gamma["default"].weight.shape == (count, n, min(rows, columns))
    expected = model(token_ids()).logits
    plain = model_of(build)
    with torch.no_grad():
        for name, layer in found.items():
            plain.get_parameter(name).add_(delta_weight(layer))
    torch.testing.assert_close(plain(token_ids()).logits, expected, **NEAR)

    model(token_ids(), labels=token_ids()).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path)
    sizes = {name.split(".mlp.")[1]: t.numel() for name, t in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert set(sizes) == {
        f"experts.updates.{p}.randlora_{k}" for p in ("gate_up_proj", "down_proj") for k in ("lambda", "gamma")
    }
    loaded = peft.PeftModel.from_pretrained(model_of(build), tmp_path)
    torch.testing.assert_close(loaded(token_ids()).logits, expected)
    torch.testing.assert_close(loaded.merge_and_unload(safe_merge=True)(token_ids()).logits, expected, **NEAR)


def test_an_adapter_of_another_name_is_active_and_saved_by_transformers(tmp_path):
    model = mixtral()
    model.add_adapter(random_config(target_parameters=TARGETS), adapter_name="mine")
    model.save_pretrained(tmp_path / "mine")
    loaded = mixtral()
    loaded.load_adapter(str(tmp_path / "mine"), adapter_name="again")
    assert loaded.active_adapters() == ["again"]
    loaded.save_pretrained(tmp_path / "again")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("mine", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_deleted_by_transformers_the_other_one_is_active_with_its_head():
    model = mixtral()
    expected = {}
    for name in ("first", "second"):
        model.add_adapter(random_config(target_parameters=TARGETS, modules_to_save=["lm_head"]), adapter_name=name)
        with torch.no_grad():
            model.lm_head.modules_to_save[name].weight.normal_()
        expected[name] = model.eval()(token_ids()).logits
    model.delete_adapter("second")
    assert model.active_adapters() == model.lm_head.active_adapters == ["first"]
    torch.testing.assert_close(model(token_ids()).logits, expected["first"])


def test_beside_target_modules_and_with_patterns():
    model = adapted(
        mixtral, target_modules=["q_proj"], rank_pattern={"down_proj": 2}, alpha_pattern={"experts.gate_up_proj": 1.0}
    )
    ranks = {name.split("layers.")[1]: layer.r["default"] for name, layer in adapted_layers(model).items()}
    assert ranks == {
        f"{i}.{name}": r
        for i in (0, 1)
        for name, r in {"self_attn.q_proj.weight": 4, "mlp.experts.down_proj": 2, "mlp.experts.gate_up_proj": 4}.items()
    }
    model(token_ids()).logits.sum().backward()


def test_adapters_on_different_parameters_of_one_module():
    model = adapted(mixtral, target_parameters=TARGETS[:1])
    first = model(token_ids()).logits
    model.add_adapter("second", random_config(target_parameters=TARGETS[1:], task_type="CAUSAL_LM"))
    torch.testing.assert_close(model(token_ids()).logits, first)
    model.set_adapter("second")
    assert model.get_model_status().active_adapters == ["second"]
    assert (model(token_ids()).logits - first).abs().max() > 1e-2
    names = {n.split("updates.")[1] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {"down_proj.randlora_lambda.second.weight", "down_proj.randlora_gamma.second.weight"}


def test_a_layer_whose_weight_is_adapted_as_a_parameter_is_not_adapted_again():
    model = peft.get_peft_model(Net(), random_config(target_modules=["a"], target_parameters=["b.weight"]))
    expected = model(rows())
    with pytest.raises(LayerError, match=r"'b'.*without adapters on its parameters, got one on weight"):
        model.add_adapter("second", random_config(target_modules=["b"]))
    assert torch.equal(model(rows()), expected)


def test_gradient_checkpointing():
    gradients = []
    for checkpointing in (False, True):
        model = adapted(mixtral).train()
        if checkpointing:
            model.enable_input_require_grads()
            model.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
        model(token_ids(), labels=token_ids()).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted)


def test_an_offloaded_module_is_refused_when_called_and_can_be_merged():
    kind = KINDS["experts"]
    model = kind.adapted()
    expected = model(kind.batch()).detach()
    model = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(UpdateError, match=r"Experts.*offloaded"):
        model(kind.batch())
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(kind.batch()), expected, **NEAR)
    model.unmerge_adapter()
    torch.testing.assert_close(model.merge_and_unload()(kind.batch()), expected, **NEAR)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target_parameters": ["0.up", "nothing"]}, LayerError, "'nothing'.*none that ends so"),
        ({"target_parameters": "0.up"}, ConfigError, "target_parameters: expected a list"),
        ({"target_parameters": ["0.up", "1.bias"]}, LayerError, "bias'.*two or three sides"),
        ({"target_parameters": ["0.up"], "dropout": 0.1}, LayerError, "dropout=0.*Experts"),
        ({"target_parameters": ["1.weight"], "target_modules": ["1"]}, LayerError, "1.weight'.*no other adapter"),
        ({"target_parameters": ["0.up"], "bases": "peft"}, ConfigError, "bases"),
    ],
)
def test_refused_in_one_line_before_anything_is_replaced(options, error, message):
    model = nn.Sequential(KINDS["experts"].plain()[0], nn.Linear(6, 6))
    kinds = [type(part) for part in model]
    with pytest.raises(error, match=message) as caught:
        peft.get_peft_model(model, RandLoraConfig(**options))
    assert "\n" not in str(caught.value)
    assert [type(part) for part in model] == kinds


def test_a_parameter_of_the_whole_model_is_refused():
    model = Net()
    model.table = nn.Parameter(torch.randn(3, 4))
    with pytest.raises(LayerError, match="table"):
        peft.get_peft_model(model, RandLoraConfig(target_parameters=["table"], target_modules=["a"]))
