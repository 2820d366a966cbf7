"""What holds of RandLoRA on every kind of layer (test_kinds.py) holds of every other method with a ΔW."""

import copy

import accelerate
import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from every_method import METHODS, config, fill
from kinds import KINDS, adapted_layers, literal_output
from literal import UPDATES, delta_weight
from networks import token_ids
from randlora.errors import CheckpointError, LayerError

# Sums of up to a few hundred float32 products of order 1.
NEAR = {"rtol": 1e-4, "atol": 1e-4}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def own_config(method, kind, **options):
    return config(method, **{"target_modules": [str(i) for i in range(9)], **kind.options, **options})


def adapted(method, kind, dtype=torch.float32, **options):
    return fill(peft.get_peft_model(kind.plain().to(dtype), own_config(method, kind, **options))).eval()


def with_second(method, kind, dtype=torch.float64):
    model = adapted(method, kind, dtype)
    model.add_adapter("other", own_config(method, kind))
    model.set_adapter("other")
    fill(model, seed=5)
    model.set_adapter("default")
    return model.eval()


def literal(method, kind, model, x, adapters=("default",), factor=1.0):
    def delta(layer, adapter):
        return factor * delta_weight(layer, method, adapter)

    return literal_output(kind, model, x, adapters, delta)


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("method", UPDATES)
def test_several_adapters(method, kind):
    x = kind.batch(torch.float64)
    model = with_second(method, kind)
    torch.testing.assert_close(model(x), literal(method, kind, model, x), **EXACT)
    model.base_model.set_adapter(["default", "other"])
    together = literal(method, kind, model, x, ("default", "other"))
    torch.testing.assert_close(model(x), together, **EXACT)
    model.merge_adapter(adapter_names=["default", "other"])
    torch.testing.assert_close(model(x), together, **EXACT)
    model.unmerge_adapter()
    model.set_adapter("other")
    alone = literal(method, kind, model, x, ("other",))
    model.delete_adapter("default")
    torch.testing.assert_close(model(x), alone, **EXACT)
    assert not any("default" in key for key in model.state_dict())


@pytest.mark.parametrize("method", UPDATES)
def test_the_scale_and_the_layout_of_delta_weight(method, kind):
    x = kind.batch(torch.float64)
    model = adapted(method, kind, torch.float64)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.scale_layer(0.5)
    for layer in adapted_layers(model).values():
        torch.testing.assert_close(layer.get_delta_weight("default"), 0.5 * delta_weight(layer, method), **EXACT)
    expected = literal(method, kind, model, x, factor=0.5)
    torch.testing.assert_close(model(x), expected, **EXACT)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), expected, **EXACT)


@pytest.mark.parametrize("method", UPDATES)
def test_loaded_without_memory_for_random_numbers_and_disabled(method, kind, tmp_path):
    x = kind.batch()
    model = adapted(method, kind)
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


@pytest.mark.parametrize("method", UPDATES)
def test_an_optimizer_moves_every_tensor(method, kind):
    model = peft.get_peft_model(kind.plain(), own_config(method, kind)).train()
    x = kind.batch()
    target = torch.randn_like(model(x))
    before = [p.detach().clone() for p in trained(model)]
    rate = 0.3 if method == "nola" else 1e-2  # NOLA's authors train with rates of about 0.1
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


@pytest.mark.parametrize("method", UPDATES)
def test_low_precision(method, kind):
    fresh = adapted(method, kind)
    expected = fresh(kind.batch()).detach()
    model = adapted(method, kind, torch.bfloat16)
    assert {p.dtype for p in trained(model)} == {torch.float32}
    output = model(kind.batch(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits.
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        output = fresh(kind.batch())
    assert (output.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize("method", UPDATES)
@pytest.mark.slow
def test_compiled_whole_it_gives_the_same(method, kind):
    torch._dynamo.reset()
    model, x = adapted(method, kind), kind.batch()
    outputs = torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x)
    gradients = zip(*(torch.autograd.grad(y.square().sum(), trained(model)) for y in outputs), strict=True)
    for got, wanted in (outputs, *gradients):
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("method", UPDATES)
@pytest.mark.parametrize("kind_name", ["conv1d", "conv2d", "embedding"])
def test_a_batch_of_several_adapters(method, kind_name):
    kind = KINDS[kind_name]
    x = kind.batch(torch.float64)
    model = with_second(method, kind)
    rows = []
    for i, adapter in enumerate(("other", "default")):
        model.set_adapter(adapter)
        rows.append(model(x)[i])
    with model.disable_adapter():
        rows.append(model(x)[2])
    got = model(x, adapter_names=["other", "default", "__base__"])
    torch.testing.assert_close(got, torch.stack(rows), **EXACT)


@pytest.mark.parametrize("method", UPDATES)
def test_dropout_drops_the_whole_update_of_a_token(method):
    model = nn.Sequential(nn.Embedding(23, 7, padding_idx=2)).double()
    start = copy.deepcopy(model)
    model = fill(peft.get_peft_model(model, config(method, target_modules=["0"], dropout=0.5))).train()
    x = torch.arange(23).repeat(4)
    update, whole = model(x) - start(x), model.eval()(x) - start(x)
    dropped = (update == 0).all(1)
    assert 0.2 < dropped.double().mean() < 0.8
    assert (update[x == 2] == 0).all()
    torch.testing.assert_close(update[~dropped], 2 * whole[~dropped], **EXACT)


@pytest.mark.parametrize("method", UPDATES)
def test_dropout_is_refused_on_parameters(method):
    with pytest.raises(LayerError, match="dropout=0"):
        adapted(method, KINDS["experts"], dropout=0.1)


class Tied(nn.Module):
    """Embedding and head with one weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(torch.tanh(self.table(x)))


@pytest.mark.parametrize("method", UPDATES)
def test_tied_weights_are_untied_by_a_merge_and_tied_again(method):
    model = fill(peft.get_peft_model(Tied(), config(method, target_modules=["table", "head"]))).eval()
    x = torch.arange(11)[None]
    expected = model(x).detach()
    with pytest.warns(UserWarning, match="have one weight, which is untied for the merge"):
        model.merge_adapter()
    torch.testing.assert_close(model(x), expected, **NEAR)
    model.unmerge_adapter()
    base = model.base_model.model
    assert base.table.base_layer.weight is base.head.base_layer.weight
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_larger_vocabulary_is_refused_at_loading(method, tmp_path):
    if method == "hydralora":
        with pytest.raises(LayerError, match=r"a linear layer .the router reads the layer's input"):
            peft.get_peft_model(nn.Sequential(nn.Embedding(11, 6)), config(method, target_modules=["0"]))
        return
    peft.get_peft_model(nn.Sequential(nn.Embedding(11, 6)), config(method, target_modules=["0"])).save_pretrained(
        tmp_path, save_embedding_layers=False
    )
    with pytest.raises(CheckpointError, match="shape 11x6"):
        peft.PeftModel.from_pretrained(nn.Sequential(nn.Embedding(12, 6)), tmp_path)


@pytest.mark.parametrize("method", ["lora_xs", "svft", "spectral"])
def test_singular_vectors_are_each_matrixs_own_and_of_the_weight_alone(method):
    model = adapted(method, KINDS["experts"])
    model.merge_adapter()
    with pytest.raises(LayerError, match=r"the base weight itself.*unmerge first"):
        model.add_adapter("other", own_config(method, KINDS["experts"]))
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


@pytest.mark.parametrize("method", ["lora_xs", "svft", "spectral"])
@pytest.mark.parametrize("kind_name", ["conv2d", "embedding", "attention", "experts"])
def test_loading_onto_other_base_weights_warns(method, kind_name, tmp_path):
    kind = KINDS[kind_name]
    adapted(method, kind).save_pretrained(tmp_path)
    other = kind.plain()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    with pytest.warns(UserWarning, match="not the base weights"):
        peft.PeftModel.from_pretrained(other, tmp_path)


@pytest.mark.parametrize("method", UPDATES)
@pytest.mark.parametrize("kind_name", ["conv2d", "embedding"])
def test_an_offloaded_model_gives_the_same(kind_name, method):
    kind = KINDS[kind_name]
    model = adapted(method, kind, target_modules=["layers.0", "layers.1", "layers.2"])  # 3 has a forward of its own
    expected = model(kind.batch()).detach()
    offloaded = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    torch.testing.assert_close(offloaded(kind.batch()), expected)


def mixtral():
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    experts = {"intermediate_size": 20, "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 50}
    return MixtralForCausalLM(MixtralConfig(**sizes, **experts, tie_word_embeddings=False)).eval()


@pytest.mark.parametrize("method", UPDATES)
def test_experts_and_attention_of_a_language_model(method, tmp_path):
    targets = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], "target_modules": ["q_proj"]}
    own = config(method, **targets, task_type="CAUSAL_LM")
    model = fill(peft.get_peft_model(mixtral(), own)).eval()
    expected = model(token_ids()).logits
    plain = mixtral()
    with torch.no_grad():
        for key, layer in adapted_layers(model).items():
            plain.get_parameter(key).add_(delta_weight(layer, method).float())
    torch.testing.assert_close(plain(token_ids()).logits, expected, **NEAR)
    model(token_ids(), labels=token_ids()).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained(model))
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(mixtral(), tmp_path)
    torch.testing.assert_close(loaded(token_ids()).logits, expected)
    torch.testing.assert_close(loaded.merge_and_unload(safe_merge=True)(token_ids()).logits, expected, **NEAR)
