"""Every kind of base layer: the literal equation 4, merged, unmerged and loaded again, and gradients that move."""

import copy

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import MambaConfig, MambaForCausalLM, WavLMConfig, WavLMModel

from kinds import KINDS, adapted_layers, equation_4, literal_output
from networks import random_config, token_ids
from randlora.errors import UpdateError

# Sums of up to a few hundred float32 products of order 1.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("strategy", ["auto", "reference"])
@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_values_and_gradients_are_equation_4s(kind, bases, strategy):
    x = kind.batch(torch.float64)
    model = kind.adapted(bases=bases, strategy=strategy).double()
    inputs = [] if kind.ids else [x.requires_grad_()]
    outputs = model(x), literal_output(kind, model, x)
    weights = torch.randn(outputs[0].shape, dtype=torch.float64)
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    got, wanted = (torch.autograd.grad((y * weights).sum(), [*trained(model), *inputs]) for y in outputs)
    for ours, theirs in zip(got, wanted, strict=True):
        assert theirs.abs().sum() > 0
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_state_merged_unmerged_and_loaded_again(kind, tmp_path):
    x = kind.batch()
    model = kind.adapted()
    expected, start = model(x).detach(), kind.plain()(x)
    assert (expected - start).abs().max() > 1e-2
    with model.disable_adapter():
        torch.testing.assert_close(model(x), start)
    model.save_pretrained(tmp_path)
    for options in ({}, {"low_cpu_mem_usage": True}):
        # Trainable, since torch has other kernels for encoders without gradients.
        loaded = peft.PeftModel.from_pretrained(kind.plain(), tmp_path, is_trainable=True, **options).eval()
        assert torch.equal(loaded(x), expected)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, **NEAR)

    model.merge_adapter(safe_merge=True)
    assert model.get_model_status().merged_adapters == ["default"]
    torch.testing.assert_close(model(x), expected, **NEAR)
    with model.disable_adapter():  # unmerges
        torch.testing.assert_close(model(x), start, **NEAR)
    model.unmerge_adapter()
    assert model.get_model_status().merged_adapters == []
    torch.testing.assert_close(model(x), expected, **NEAR)
    merged = model.merge_and_unload(safe_merge=True)
    assert [type(part) for part in merged.modules()] == [type(part) for part in kind.plain().modules()]
    torch.testing.assert_close(merged(x), expected, **NEAR)
    model = kind.adapted()
    torch.testing.assert_close(model.unload()(x), start)


def test_an_optimizer_moves_lambda_and_gamma(kind):
    model = kind.adapted(init_weights=True).train()
    x = kind.batch()
    target = torch.randn_like(model(x))
    before = [p.detach().clone() for p in trained(model)]
    names = {n.split(".")[-3] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {"randlora_lambda", "randlora_gamma"}
    optimizer = torch.optim.SGD(trained(model), lr=1e-2)
    losses = []
    for _ in range(3):  # γ = 0 leaves λ without a gradient in the first step
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(not torch.equal(p, old) for p, old in zip(trained(model), before, strict=True))
    assert losses[-1] < losses[0]


def test_several_adapters(kind):
    x = kind.batch(torch.float64)
    model = kind.adapted(r=3).double()
    torch.manual_seed(7)
    config = copy.deepcopy(model.peft_config["default"])
    second = random_config(**{**kind.options, "target_modules": config.target_modules, "r": 2, "bases": "normal"})
    model.add_adapter("second", second)
    model.double()
    torch.testing.assert_close(model(x), literal_output(kind, model, x), rtol=1e-10, atol=1e-10)
    model.base_model.set_adapter(["default", "second"])
    together = literal_output(kind, model, x, ("default", "second"))
    torch.testing.assert_close(model(x), together, rtol=1e-10, atol=1e-10)
    model.merge_adapter(adapter_names=["default", "second"])
    torch.testing.assert_close(model(x), together, rtol=1e-10, atol=1e-10)
    model.unmerge_adapter()
    model.set_adapter("second")
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {"second"}
    alone = literal_output(kind, model, x, ("second",))
    model.delete_adapter("default")
    torch.testing.assert_close(model(x), alone, rtol=1e-10, atol=1e-10)
    assert not any("default" in name for name in model.state_dict())


def test_delta_weight_is_laid_out_as_the_weight(kind):
    model = kind.adapted().double()
    for layer in adapted_layers(model).values():
        torch.testing.assert_close(layer.get_delta_weight("default"), equation_4(layer), rtol=1e-10, atol=1e-10)


def test_low_precision(kind):
    x = kind.batch(torch.bfloat16)
    model = kind.adapted().bfloat16()
    fresh = kind.adapted()  # λ and γ in float32 on a bfloat16 model
    base = {
        n: p.dtype
        for n, p in peft.get_peft_model(kind.plain().bfloat16(), fresh.peft_config["default"]).named_parameters()
        if p.requires_grad
    }
    assert set(base.values()) == {torch.float32}
    expected = kind.adapted()(kind.batch())
    output = model(x)
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits.
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        output = fresh(kind.batch())
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.slow
def test_compiled_whole_it_gives_the_same(kind):
    torch._dynamo.reset()
    model, x = kind.adapted(), kind.batch()
    outputs = torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x)
    gradients = zip(*(torch.autograd.grad(y.square().sum(), trained(model)) for y in outputs), strict=True)
    for got, wanted in (outputs, *gradients):
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def mamba():
    config = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=50, state_size=4, tie_word_embeddings=False)
    return MambaForCausalLM(config).eval()


def wavlm():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    convolutions = {"conv_dim": (8,), "conv_stride": (5,), "conv_kernel": (10,), "num_conv_pos_embeddings": 4}
    return WavLMModel(WavLMConfig(**sizes, **convolutions, num_conv_pos_embedding_groups=2)).eval()


@pytest.mark.parametrize(
    ("build", "target"),
    [(mamba, name) for name in ("conv1d", "x_proj", "dt_proj", "out_proj")] + [(wavlm, "q_proj"), (wavlm, "out_proj")],
)
def test_a_weight_that_is_read_in_place_of_calling_the_layer(build, target):
    def output(model):
        return model(token_ids()).logits if build is mamba else model(torch.sin(torch.arange(60.0))[None])[0]

    torch.manual_seed(1)
    base = build()
    start = output(base).detach()
    model = peft.get_peft_model(base, random_config(target_modules=[target])).eval()
    expected = output(model)
    assert (expected - start).abs().max() > 1e-4
    expected.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in trained(model))
    torch.testing.assert_close(output(model.merge_and_unload()), expected, **NEAR)


def test_where_a_weight_is_read_dropout_and_adapters_by_sample_are_refused():
    model = peft.get_peft_model(mamba(), random_config(target_modules=["conv1d"], dropout=0.5))
    with pytest.raises(UpdateError, match=r"Conv1d: expected no dropout and no adapter_names.*leave it out"):
        model.train()(token_ids())
    model.eval()(token_ids())
    with pytest.raises(UpdateError, match="no adapter_names"):
        model(token_ids(), adapter_names=["default", "default"])
    model(token_ids())


def test_a_reference_adapter_filled_by_parameter_names(kind):
    model = kind.adapted()
    x = kind.batch()
    expected = model(x)
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if ".default." in name:
            model.get_parameter(name.replace(".default.", ".ref.")).data.copy_(parameter.data)
    model.set_adapter("ref")
    assert torch.equal(model(x), expected)


def test_every_kind_follows_the_scale(kind):
    model = kind.adapted().double()
    x = kind.batch(torch.float64)
    weights = {n: layer.get_delta_weight("default") for n, layer in adapted_layers(model).items()}
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.scale_layer(0.5)
    for name, layer in adapted_layers(model).items():
        torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * weights[name])
    torch.testing.assert_close(model(x), literal_output(kind, model, x), rtol=1e-10, atol=1e-10)
    scaled = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), scaled, rtol=1e-9, atol=1e-9)
