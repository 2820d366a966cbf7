"""Layers whose forward is more than a product, and batches by sample on every kind of layer, for every method."""

import copy

import peft
import pytest
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, Gemma3ForCausalLM, Gemma3TextConfig
from transformers.models.falcon.modeling_falcon import FalconLinear

from every_method import MERGEABLE, REPRESENTATIVES, adapted, config, fill
from kinds import KINDS, Kind, Packed, Scaled, Sum
from networks import gpt2, token_ids
from randlora.errors import UpdateError

NAMES = ["other", "__base__", "default", "other", "default", "__base__"]


class Tripled(nn.Linear):
    """Its output is scaled, bias and all."""

    def forward(self, x, factor=3):
        return factor * super().forward(x)


class Router(nn.Linear):
    """Of Llama 4 and PhiMoE: scores and logits."""

    def forward(self, x):
        logits = super().forward(x)
        return logits.sigmoid(), logits


class Normed(nn.Embedding):
    """Of Inkling: rows of one length."""

    def forward(self, x):
        return nn.functional.normalize(super().forward(x), dim=-1)


class Positions(nn.Embedding):
    """Of BART: looked up are positions, whatever the tokens, and an offset."""

    def forward(self, x, offset=2):
        return super().forward(torch.arange(offset, offset + x.shape[1]).expand(len(x), -1))


ODD = {
    "tripled": Kind(lambda: Sum(Tripled(6, 9), Tripled(6, 4, bias=False)), (6, 6)),
    "falcon": Kind(lambda: Sum(FalconLinear(6, 9), FalconLinear(6, 4, bias=False)), (6, 6)),
    "scaled rows": Kind(lambda: Sum(Scaled(9, 6), Scaled(30, 5, padding_idx=1)), (6, 4), ids=9),
    "normed rows": Kind(lambda: Sum(Normed(9, 6)), (6, 4), ids=9),
    "positions": Kind(lambda: Sum(Positions(9, 6)), (6, 4), ids=9),
}
PLAIN = {
    "linear": Kind(lambda: Sum(nn.Linear(6, 9), nn.Linear(6, 4, bias=False)), (6, 6)),
    "packed": Kind(lambda: Sum(Packed(nn.Linear(6, 9))), (6, 6)),
    "conv1d": Kind(KINDS["conv1d"].build, (6, 6, 11)),
    "conv2d": Kind(KINDS["conv2d"].build, (6, 6, 7, 8)),
    "conv3d": Kind(KINDS["conv3d"].build, (6, 2, 3, 4, 3)),
    "embedding": Kind(KINDS["embedding"].build, (6, 6), ids=5),
}
SORTS = [name for name in REPRESENTATIVES if name in MERGEABLE]


def pairs(kinds, methods):
    for kind in kinds:
        for method in methods:
            is_linear = kind in ("tripled", "falcon", "linear", "packed")
            if (is_linear or method != "hydralora") and not (kind == "packed" and method == "svft"):
                yield kind, method


def two(kind, method):
    options = {"target_modules": [str(number) for number in range(4)]}
    model = fill(peft.get_peft_model(kind.plain(), config(method, **options)))
    model.add_adapter("other", config(method, **options))
    model.set_adapter("other")
    fill(model, seed=5)
    model.set_adapter("default")
    return model.eval()


@pytest.mark.parametrize(("name", "method"), pairs(ODD | PLAIN, REPRESENTATIVES))
def test_by_sample_is_one_adapter_at_a_time(name, method):
    kind = (ODD | PLAIN)[name]
    model, x = two(kind, method), kind.batch()
    expected = []
    for row, adapter in zip(x.split(1), NAMES, strict=True):
        if adapter == "__base__":
            with model.disable_adapter():
                expected.append(model(row))
        else:
            model.set_adapter(adapter)
            expected.append(model(row))
    model.set_adapter("default")
    found = model(x, adapter_names=NAMES)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)
    assert (expected[0] - model(x[:1])).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "method"), [pair for pair in pairs(ODD, SORTS) if pair[0] != "tripled"])
def test_the_update_goes_through_the_layers_own_forward(name, method):
    kind = ODD[name]
    model, x = two(kind, method), kind.batch()
    merged = copy.deepcopy(model).merge_and_unload()
    outputs = model.train()(x)
    torch.testing.assert_close(merged(x), outputs, rtol=1e-4, atol=1e-4)
    assert (outputs - kind.plain()(x)).abs().max() > 1e-3
    outputs.square().sum().backward()
    for parameter in (p for n, p in model.named_parameters() if p.requires_grad):
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("method", SORTS)
def test_beside_a_linear_layer_with_a_forward_of_its_own_until_it_is_merged(method):
    model = adapted(method, nn.Sequential(Tripled(6, 9)), target_modules=["0"])
    layer, x = model.base_model.model[0], torch.randn(5, 6)
    update = x @ layer.get_delta_weight("default").T
    torch.testing.assert_close(model(x), layer.base_layer(x) + update, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(x, factor=5), 5 / 3 * layer.base_layer(x) + update, rtol=1e-4, atol=1e-4)
    expected = layer.base_layer(x) + 3 * update
    with pytest.warns(UserWarning, match=r"module '0'.*Tripled.*forward of its own"):
        merged = model.merge_and_unload()
    torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", REPRESENTATIVES)
def test_a_layer_that_gives_more_than_a_tensor_is_named(method):
    model = adapted(method, nn.Sequential(Router(6, 4)), target_modules=["0"])
    x = torch.randn(5, 6)
    for names in (None, ["default"] * 5):
        with pytest.raises(UpdateError, match=r"Router: expected a layer whose output is one tensor, .*got tuple"):
            model(x) if names is None else model(x, adapter_names=names)
    with model.disable_adapter():
        assert len(model(x)) == 2
    if method in MERGEABLE:
        model.merge_adapter()
        assert len(model(x)) == 2


@pytest.mark.parametrize(("kind", "method"), pairs({"linear": None, "conv2d": None}, SORTS))
def test_beside_a_layer_whose_own_forward_was_replaced(kind, method):
    torch.manual_seed(1)
    layer, x = (
        (nn.Linear(6, 9), torch.randn(5, 6)) if kind == "linear" else (nn.Conv2d(2, 5, 3), torch.randn(3, 2, 6, 6))
    )
    plain = layer.forward
    model = adapted(method, nn.Sequential(layer), target_modules=["0"])
    update = model(x) - layer(x)
    layer.forward = lambda x: 2 * plain(x)  # as packages do that patch a layer
    torch.testing.assert_close(model(x), 2 * plain(x) + update, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [nn.Linear, FalconLinear])
def test_no_such_warning_for_a_plain_product(build, recwarn):
    adapted("randlora", nn.Sequential(build(6, 9)), target_modules=["0"]).merge_and_unload()
    assert not [warning for warning in recwarn if "forward of its own" in str(warning.message)]


def gemma():
    torch.manual_seed(1)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": False}
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads))


def bart():
    torch.manual_seed(1)
    layers_ = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"vocab_size": 50, "d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    return BartForConditionalGeneration(BartConfig(**sizes, **layers_, **ids, scale_embedding=True))


@pytest.mark.parametrize(
    ("build", "targets"), [(gemma, ["embed_tokens", "q_proj"]), (bart, ["embed_tokens", "embed_positions", "fc1"])]
)
def test_scaled_embeddings_of_language_models(build, targets):
    model = adapted("randlora", build(), target_modules=targets)
    model.add_adapter("other", config("randlora", target_modules=targets))
    model.set_adapter("other")
    fill(model, seed=5).eval()
    ids, expected = token_ids().repeat(2, 1), []
    names = ["other", "default", "default", "other"]
    for row, name in zip(ids.split(1), names, strict=True):
        model.set_adapter(name)
        expected.append(model(row).logits)
    found = model(ids, adapter_names=names).logits
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_table_that_all_samples_share_is_refused_in_one_line():
    model = adapted("randlora", gpt2(), target_modules=["wpe"])
    with pytest.raises(UpdateError, match=r"expected 1 names.*samples share, as positions") as caught:
        model(token_ids(), adapter_names=["default", "__base__"])
    assert "\n" not in str(caught.value)
