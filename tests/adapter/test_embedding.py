"""What is particular to embeddings: only the rows looked up, padding, dropout, ties, and what is refused."""

import peft
import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from kinds import KINDS, Scaled
from networks import gpt2, llama, random_config, token_ids
from randlora import RandLoraConfig
from randlora.errors import LayerError
from randlora.methods.randlora import RandLoraLayer

KIND = KINDS["embedding"]


class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the size of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor) and not function.is_view:
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_a_step_forms_no_tensor_of_the_size_of_the_table(bases):
    config = random_config(bases=bases, target_modules=["0"])
    model = peft.get_peft_model(nn.Sequential(nn.Embedding(5000, 8)), config)
    ids = torch.randint(5000, (4, 3))
    with Sizes() as sizes:
        model(ids).square().sum().backward()
    assert 0 < sizes.largest < 1000


def test_the_padding_row_stays():
    model = KIND.adapted()
    table = model.base_model.model.layers[0]
    padding = table.base_layer.padding_idx
    expected = table.base_layer.weight[padding].clone()
    assert torch.equal(table(torch.tensor([padding])), expected[None])
    model.merge_adapter()
    assert torch.equal(table.base_layer.weight[padding], expected)


def test_dropout_drops_the_whole_update_of_a_token():
    model = peft.get_peft_model(nn.Sequential(nn.Embedding(40, 8)), random_config(target_modules=["0"], dropout=0.25))
    ids = torch.arange(40).repeat(20)
    with model.disable_adapter():
        base = model(ids)
    update = model.eval()(ids) - base
    scale = ((model.train()(ids) - base) * update).sum(1) / update.square().sum(1)
    dropped = scale.abs() < 1e-3
    assert 0.15 < dropped.float().mean() < 0.35
    torch.testing.assert_close(scale[~dropped], torch.full_like(scale[~dropped], 1 / 0.75), rtol=1e-3, atol=1e-3)


def test_a_batch_of_several_adapters():
    model = KIND.adapted()
    model.add_adapter("second", KIND.adapted(r=2, seed=5).peft_config["default"])
    x = KIND.batch()
    layer = model.base_model.model.layers[0]
    rows = torch.stack([layer.update(name, x[i]) for i, name in enumerate(("second", "default"))])
    with model.disable_adapter():
        expected = layer(x)
    expected[:2] += rows
    torch.testing.assert_close(layer(x, adapter_names=["second", "default", "__base__"]), expected)


def test_in_a_language_model_the_forms_agree():
    model = peft.get_peft_model(gpt2(), random_config(target_modules=["wte", "c_attn"], task_type="CAUSAL_LM"))
    assert isinstance(model.base_model.model.transformer.wte, RandLoraLayer)
    untied = peft.get_peft_model(llama(), random_config(target_modules=["embed_tokens"], task_type="CAUSAL_LM"))
    for each in (model, untied):
        expected = each(token_ids()).logits
        torch.testing.assert_close(each.merge_and_unload()(token_ids()).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_embedding_that_scales():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=24,
        vocab_size=50,
        tie_word_embeddings=False,
    )
    model = peft.get_peft_model(
        Gemma3ForCausalLM(config).eval(), random_config(target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    )
    expected = model(token_ids()).logits
    torch.testing.assert_close(model.merge_and_unload()(token_ids()).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("odd", "dropout", "message"),
    [
        (lambda: nn.Embedding(5, 4, max_norm=1.0), 0, "max_norm=None"),
        (lambda: nn.Embedding(5, 4, scale_grad_by_freq=True), 0, "scale_grad_by_freq=False"),
        (lambda: Scaled(5, 4), 0.1, "dropout=0"),
        (lambda: Scaled(5, 4, sparse=True), 0, "sparse=False"),
    ],
)
def test_refused_in_one_line_before_anything_is_replaced(odd, dropout, message):
    model = nn.ModuleDict({"fine": nn.Embedding(5, 4), "odd": odd()})
    with pytest.raises(LayerError, match=f"'odd'.*{message}") as caught:
        peft.get_peft_model(model, RandLoraConfig(target_modules=["fine", "odd"], dropout=dropout))
    assert "\n" not in str(caught.value)
    assert type(model["fine"]) is nn.Embedding
