"""Adapters on nn.MultiheadAttention, whose packed projections are read and not called: alive, and in the fast path."""

import peft
import pytest
import torch
from torch import nn

from kinds import KINDS, adapted_layers
from networks import random_config
from randlora import RandLoraConfig
from randlora.adapter.parameters import AdaptedModule
from randlora.errors import CheckpointError, ConfigError, LayerError, RandLoraError, UpdateError

NEAR = {"rtol": 1e-4, "atol": 1e-4}


def encoder(**options):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0, batch_first=True)
    return peft.get_peft_model(nn.TransformerEncoder(layer, 2).eval(), random_config(**options)).eval()


def test_q_k_and_v_have_updates_of_their_own():
    model = KINDS["attention"].adapted()
    shapes = {
        name: tuple(layer.randlora_gamma["default"].weight.shape) for name, layer in adapted_layers(model).items()
    }
    assert shapes == {
        "packed.in_proj_weight": (3, 2, 6),
        "packed.out_proj.weight": (1, 2, 6),
        "apart.q_proj_weight": (1, 2, 6),
        "apart.k_proj_weight": (1, 1, 4),
        "apart.v_proj_weight": (1, 2, 5),
        "apart.out_proj.weight": (1, 2, 6),
    }
    packed = adapted_layers(model)["packed.in_proj_weight"]
    q, k, v = packed.get_delta_weight("default").chunk(3)
    assert not torch.allclose(q, k)
    assert not torch.allclose(k, v)
    with torch.no_grad():
        packed.randlora_lambda["default"].weight[1] = 0
    changed = packed.get_delta_weight("default").chunk(3)
    assert torch.equal(changed[0], q)
    assert not changed[1].any()
    assert torch.equal(changed[2], v)


def test_from_the_true_start_every_lambda_and_gamma_gets_a_gradient_and_moves():
    # The official RandLoRA code assigns W₀ + ΔW through `.data`, so that λ and γ never get a gradient.
    model = KINDS["attention"].adapted(init_weights=True).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    x = KINDS["attention"].batch()
    for step in range(2):
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == ("randlora_" in name)
            if "gamma" in name or (step and "lambda" in name):
                by_matrix = parameter.grad.flatten(1).abs().sum(1)
                assert (by_matrix > 0).all(), name
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start[name]) == ("randlora_" not in name), name


@pytest.mark.parametrize("targets", [["self_attn"], ["linear1", "linear2"], ["0.linear2", "1.self_attn"]])
@pytest.mark.parametrize("masked", [False, True])
def test_the_fast_path_of_encoders_sees_the_adapters(targets, masked, monkeypatch):
    model = encoder(target_modules=targets)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(3))
    padding = torch.arange(5)[None] >= torch.tensor([[5], [3], [4]])
    options = {"src_key_padding_mask": padding} if masked else {}

    def outputs(mode):
        with mode:
            return torch.where(padding[..., None] & masked, 0, model(x, **options)).detach()

    calls = []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a, **k: calls.append(1) or fast(*a, **k))
    expected = outputs(torch.enable_grad())
    assert not calls
    for mode in (torch.no_grad(), torch.inference_mode()):
        torch.testing.assert_close(outputs(mode), expected, **NEAR)
    assert len(calls) == 4
    model.merge_adapter()
    torch.testing.assert_close(outputs(torch.no_grad()), expected, **NEAR)
    with model.disable_adapter():
        assert (outputs(torch.no_grad()) - expected).abs().max() > 1e-2


def test_in_a_transformer_with_decoder_and_masks():
    torch.manual_seed(1)
    plain = nn.Transformer(8, 2, 1, 1, 12, dropout=0, batch_first=True).eval()
    model = peft.get_peft_model(plain, random_config(target_modules=["self_attn", "multihead_attn"])).eval()
    assert sum(isinstance(part, AdaptedModule) for part in model.modules()) == 3
    source, target = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    expected = model(source, target, tgt_mask=mask)
    with torch.no_grad():
        torch.testing.assert_close(model(source, target, tgt_mask=mask), expected, **NEAR)
    torch.testing.assert_close(model.merge_and_unload()(source, target, tgt_mask=mask), expected, **NEAR)


def test_ranks_by_the_name_of_the_attention_module():
    model = encoder(target_modules=["self_attn"], rank_pattern={"0.self_attn": 2})
    assert {name.split(".")[1]: layer.r["default"] for name, layer in adapted_layers(model).items()} == {"0": 2, "1": 4}


def test_bases_of_the_first_version_are_judged_by_the_rank_of_the_module():
    options = {"target_modules": ["self_attn"], "bases": "structured", "bases_version": 1}
    encoder(**options, r=3, rank_pattern={"self_attn": 2})  # 2 divides 8: these are the same in both versions
    with pytest.raises(CheckpointError, match=r"in_proj_weight' of shape .*r=3 does not give this layer full rank"):
        encoder(**options, r=2, rank_pattern={"self_attn": 3})


def test_a_batch_of_several_adapters_is_refused():
    model = encoder(target_modules=["self_attn"])
    with pytest.raises(UpdateError, match=r"adapter_names.*self_attn"):
        model(torch.randn(2, 5, 8), adapter_names=["default", "__base__"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dropout": 0.1}, LayerError, r"in_proj_weight'.*dropout=0.*MultiheadAttention"),
        ({"bias": "randlora_only"}, LayerError, "bias='none' or 'all'"),
        ({"bases": "peft"}, ConfigError, r"bases.*in_proj_weight"),
        ({"target_modules": ["0", "out_proj"]}, LayerError, r"0\.out_proj'.*name the attention module"),
        ({"target_modules": [], "target_parameters": ["0.in_proj_weight"]}, LayerError, "target_modules instead"),
    ],
)
def test_refused_in_one_line_before_anything_is_replaced(options, error, message):
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    with pytest.raises(error, match=message) as caught:
        peft.get_peft_model(model, RandLoraConfig(**{"target_modules": ["0", "1"], **options}))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RandLoraError)
    assert [type(part) for part in model] == [nn.MultiheadAttention, nn.Linear]
