"""What holds of RandLoRA on every kind of layer (test_kinds.py) holds of every other method with a ΔW."""

import copy

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from every_method import METHODS, config, fill
from kinds import KINDS, adapted_layers, literal_output
from literal import UPDATES, delta_weight
from randlora.errors import CheckpointError, LayerError

# Sums of up to a few hundred float32 products of order 1.
NEAR = {"rtol": 1e-4, "atol": 1e-4}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=UPDATES)
def name(request):
    return request.param


def own_config(name, kind, **options):
    return config(name, **{"target_modules": [str(i) for i in range(9)], **kind.options, **options})


def adapted(name, kind, dtype=torch.float32, **options):
    return fill(peft.get_peft_model(kind.plain().to(dtype), own_config(name, kind, **options))).eval()


def with_second(name, kind, dtype=torch.float64):
    model = adapted(name, kind, dtype)
    model.add_adapter("other", own_config(name, kind))
    model.set_adapter("other")
    fill(model, seed=5)
    model.set_adapter("default")
    return model.eval()


def literal(name, kind, model, x, adapters=("default",), factor=1.0):
    def delta(layer, adapter):
        return factor * delta_weight(layer, name, adapter)

    return literal_output(kind, model, x, adapters, delta)


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def test_several_adapters(name, kind):
    x = kind.batch(torch.float64)
    model = with_second(name, kind)
    torch.testing.assert_close(model(x), literal(name, kind, model, x), **EXACT)
    model.base_model.set_adapter(["default", "other"])
    together = literal(name, kind, model, x, ("default", "other"))
    torch.testing.assert_close(model(x), together, **EXACT)
    model.merge_adapter(adapter_names=["default", "other"])
    torch.testing.assert_close(model(x), together, **EXACT)
    model.unmerge_adapter()
    model.set_adapter("other")
    alone = literal(name, kind, model, x, ("other",))
    model.delete_adapter("default")
    torch.testing.assert_close(model(x), alone, **EXACT)
    assert not any("default" in key for key in model.state_dict())


def test_the_scale_and_the_layout_of_delta_weight(name, kind):
    x = kind.batch(torch.float64)
    model = adapted(name, kind, torch.float64)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.scale_layer(0.5)
    for layer in adapted_layers(model).values():
        torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * delta_weight(layer, name), **EXACT)
    expected = literal(name, kind, model, x, factor=0.5)
    torch.testing.assert_close(model(x), expected, **EXACT)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), expected, **EXACT)


def test_loaded_without_memory_for_random_numbers_and_disabled(name, kind, tmp_path):
    x = kind.batch()
    model = adapted(name, kind)
    expected, start = model(x).detach(), kind.plain()(x)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), start)
    model.save_pretrained(tmp_path)
    for options in ({}, {"low_cpu_mem_usage": True}):
        # Trainable, since torch has other kernels for encoders without gradients.
        loaded = peft.PeftModel.from_pretrained(kind.plain(), tmp_path, is_trainable=True, **options).eval()
        torch.testing.assert_close(loaded(x), expected)
    merged = copy.deepcopy(model).merge_and_unload(safe_merge=True)
    assert [type(part) for part in merged.modules()] == [type(part) for part in kind.plain().modules()]
    torch.testing.assert_close(merged(x), expected, **NEAR)
    torch.testing.assert_close(model.unload()(x), start)


def test_an_optimizer_moves_every_tensor(name, kind):
    model = peft.get_peft_model(kind.plain(), own_config(name, kind)).train()
    x = kind.batch()
    target = torch.randn_like(model(x))
    before = [p.detach().clone() for p in trained(model)]
    rate = 0.3 if name == "nola" else 1e-2  # NOLA's authors train with rates of about 0.1
    optimizer = torch.optim.SGD(trained(model), lr=rate)
    losses = []
    for _ in range(3):  # a factor that starts at 0 leaves the other without a gradient in the first step
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(not torch.equal(p, old) for p, old in zip(trained(model), before, strict=True))
    assert losses[-1] < losses[0]


def test_low_precision(name, kind):
    fresh = adapted(name, kind)
    expected = fresh(kind.batch()).detach()
    model = adapted(name, kind, torch.bfloat16)
    assert {p.dtype for p in trained(model)} == {torch.float32}
    output = model(kind.batch(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits.
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        output = fresh(kind.batch())
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.slow
def test_compiled_whole_it_gives_the_same(name, kind):
    torch._dynamo.reset()
    model, x = adapted(name, kind), kind.batch()
    outputs = torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x)
    gradients = zip(*(torch.autograd.grad(y.square().sum(), trained(model)) for y in outputs), strict=True)
    for got, wanted in (outputs, *gradients):
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("kind_name", ["conv1d", "conv2d", "embedding"])
def test_a_batch_of_several_adapters(name, kind_name):
    kind = KINDS[kind_name]
    x = kind.batch(torch.float64)
    model = with_second(name, kind)
    rows = []
    for i, adapter in enumerate(("other", "default")):
        model.set_adapter(adapter)
        rows.append(model(x)[i])
    with model.disable_adapter():
        rows.append(model(x)[2])
    got = model(x, adapter_names=["other", "default", "__base__"])
    torch.testing.assert_close(got, torch.stack(rows), **EXACT)


def test_dropout_drops_the_whole_update_of_a_token(name):
    model = nn.Sequential(nn.Embedding(23, 7, padding_idx=2)).double()
    start = copy.deepcopy(model)
    model = fill(peft.get_peft_model(model, config(name, target_modules=["0"], dropout=0.5))).train()
    x = torch.arange(23).repeat(4)
    update, whole = model(x) - start(x), model.eval()(x) - start(x)
    dropped = (update == 0).all(1)
    assert 0.2 < dropped.double().mean() < 0.8
    assert (update[x == 2] == 0).all()
    torch.testing.assert_close(update[~dropped], 2 * whole[~dropped], **EXACT)


def test_dropout_is_refused_on_parameters(name):
    with pytest.raises(LayerError, match="dropout=0"):
        adapted(name, KINDS["experts"], dropout=0.1)


class Tied(nn.Module):
    """Embedding and head with one weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(torch.tanh(self.table(x)))


def test_tied_weights_are_untied_by_a_merge_and_tied_again(name):
    model = fill(peft.get_peft_model(Tied(), config(name, target_modules=["table", "head"]))).eval()
    x = torch.arange(11)[None]
    expected = model(x).detach()
    with pytest.warns(UserWarning, match="have one weight, which is untied for the merge"):
        model.merge_adapter()
    torch.testing.assert_close(model(x), expected, **NEAR)
    model.unmerge_adapter()
    base = model.base_model.model
    assert base.table.base_layer.weight is base.head.base_layer.weight
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_larger_vocabulary_is_refused_at_loading(name, tmp_path):
    if name == "hydralora":
        with pytest.raises(LayerError, match=r"a linear layer .the router reads the layer's input"):
            peft.get_peft_model(nn.Sequential(nn.Embedding(11, 6)), config(name, target_modules=["0"]))
        return
    peft.get_peft_model(nn.Sequential(nn.Embedding(11, 6)), config(name, target_modules=["0"])).save_pretrained(
        tmp_path, save_embedding_layers=False
    )
    with pytest.raises(CheckpointError, match="shape 11x6"):
        peft.PeftModel.from_pretrained(nn.Sequential(nn.Embedding(12, 6)), tmp_path)


@pytest.mark.parametrize("name", ["lora_xs", "svft", "spectral"])
def test_singular_vectors_are_each_matrixs_own_and_of_the_weight_alone(name):
    model = adapted(name, KINDS["experts"])
    model.merge_adapter()
    with pytest.raises(LayerError, match=r"the base weight itself.*unmerge first"):
        model.add_adapter("other", own_config(name, KINDS["experts"]))
    model.unmerge_adapter()
    layer = next(iter(adapted_layers(model).values()))
    deltas = layer.get_delta_weight("default")
    assert deltas.shape == (3, 6, 11)
    with torch.no_grad():  # the same numbers for every expert: what differs is their vectors
        for key in layer.adapter_layer_names:
            weight = getattr(layer, key)["default"].weight
            weight.copy_(weight[:1].expand_as(weight))
    first, second, _ = layer.get_delta_weight("default")
    assert (first - second).abs().max() > 0.1 * first.abs().max()
