"""Quantized linear layers: the update beside them, and merging, which rounds to the format or is refused."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import peft
import pytest
import torch
from torch import nn

from kinds import Packed, adapted_layers
from literal import randlora_matrices
from networks import random_config
from randlora import RandLoraConfig
from randlora.adapter.weights import read_weight, write_weight
from randlora.errors import LayerError
from randlora.methods import HybridConfig
from randlora.update import adapted_linear

TARGETS = ["0", "2", "4"]


def plain():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(40, 64), nn.Tanh(), nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64)).eval()


def bitsandbytes(layer, **options):
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    sides = layer.in_features, layer.out_features
    if options:
        quantized = bnb.nn.Linear4bit(*sides, compute_dtype=torch.float32, **options)
    else:
        quantized = bnb.nn.Linear8bitLt(*sides, has_fp16_weights=False)
    quantized.load_state_dict(layer.state_dict())
    # With it, a layer that has seen inference can no longer be differentiated (bitsandbytes 0.50.2).
    quantized.support_avx512bf16_for_cpu = False
    return quantized.to("cpu")


def torchao(layer, config, *, by_groups=False):
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao import quantization

    options = {"granularity": quantization.PerGroup(32)} if by_groups else {}
    quantization.quantize_(layer, getattr(quantization, config)(**options))
    return layer


def hqq(layer):
    pytest.importorskip("hqq", reason="hqq is not installed")
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    layer.requires_grad_(False)
    return HQQLinear(layer, BaseQuantizeConfig(nbits=4, group_size=64), compute_dtype=torch.float32, device="cpu")


@dataclass
class Format:
    """A format.

    Attributes:
        quantize: Quantizes a layer.
        step: Largest rounding error as a share of the largest weight; None where the format is not written.
        near: Largest error of the layer's own product as a share of the largest output: bitsandbytes' 8-bit products
            round the activations too.
    """

    quantize: Callable[[nn.Linear], nn.Module]
    step: float | None
    near: float = 1e-4


FORMATS = {
    "nf4": Format(lambda layer: bitsandbytes(layer, quant_type="nf4"), 0.16),
    "nf4 with double quantization": Format(
        lambda layer: bitsandbytes(layer, quant_type="nf4", compress_statistics=True), 0.16
    ),
    "fp4": Format(lambda layer: bitsandbytes(layer, quant_type="fp4", compress_statistics=False), 0.18),
    "int8 of bitsandbytes": Format(bitsandbytes, 0.005, near=0.02),
    "int8 of torchao": Format(lambda layer: torchao(layer, "Int8WeightOnlyConfig"), 0.005),
    "int8 of torchao by groups": Format(lambda layer: torchao(layer, "Int8WeightOnlyConfig", by_groups=True), 0.005),
    "int8 of torchao, activations too": Format(
        lambda layer: torchao(layer, "Int8DynamicActivationInt8WeightConfig"), 0.005, near=0.02
    ),
    "float8 of torchao": Format(lambda layer: torchao(layer, "Float8WeightOnlyConfig"), 0.04),
    "intx of torchao": Format(lambda layer: torchao(layer, "IntxWeightOnlyConfig"), None),
    "hqq": Format(hqq, 0.08),
    "gptq": Format(Packed, None),
}


@pytest.fixture(params=FORMATS)
def quantized_format(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's and bitsandbytes' own
        yield FORMATS[request.param]


def quantized(form):
    model = plain()
    for index in (2, 4):  # the first layer stays
        model[index] = form.quantize(model[index])
    return model


def adapted(form, **options):
    return peft.get_peft_model(quantized(form), random_config(target_modules=TARGETS, **options)).eval()


def batch():
    return torch.randn(5, 40, generator=torch.Generator().manual_seed(3))


def literal_output(base, model, x):
    """Each layer's own output plus x·ΔWᵀ by equation 4 in float64."""
    layers = {name.removesuffix(".weight"): layer for name, layer in adapted_layers(model).items()}
    for index, part in enumerate(base):
        update = 0
        if str(index) in layers:
            (matrix,) = randlora_matrices(layers[str(index)])
            update = (x.double() @ matrix.T).float()
        x = part(x) + update
    return x


@pytest.mark.parametrize("strategy", ["factored", "folded"])
@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_values_and_gradients(quantized_format, bases, strategy):
    model, base = adapted(quantized_format, bases=bases, strategy=strategy), quantized(quantized_format)
    assert [p.dtype for p in model.parameters() if p.requires_grad] == [torch.float32] * 6
    near = quantized_format.near
    got, wanted = model(batch()), literal_output(base, model, batch())
    assert (got - wanted).abs().max() <= near * wanted.abs().max()
    trained = [p for p in model.parameters() if p.requires_grad]
    pairs = zip(*(torch.autograd.grad(y.square().sum(), trained) for y in (got, wanted)), strict=True)
    for ours, theirs in pairs:
        assert theirs.abs().sum() > 0
        assert (ours - theirs).abs().max() <= 10 * near * theirs.abs().max()
    with torch.no_grad():
        assert (model(batch()) - wanted).abs().max() <= near * wanted.abs().max()
        with model.disable_adapter():
            assert (model(batch()) - base(batch())).abs().max() <= near * wanted.abs().max()


@pytest.mark.parametrize("layer", ["nf4", "int8 of torchao"])
def test_many_rows_take_one_product_with_the_folded_weight(layer, monkeypatch):
    steps = []

    def counted(*given):
        steps.append(1)
        return adapted_linear(*given)

    monkeypatch.setattr("randlora.methods.randlora.layer.adapted_linear", counted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(2)
        config = HybridConfig(r=4, lora_r=2, alpha=2.0, init_weights=False, target_modules=TARGETS)
        model = peft.get_peft_model(quantized(FORMATS[layer]), config)
    x = torch.randn(300, 40, generator=torch.Generator().manual_seed(3)).requires_grad_()
    trained = [p for p in model.parameters() if p.requires_grad]
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)
    gradients = torch.autograd.grad(output.square().sum(), [x, *trained])
    assert len(steps) == 3
    assert 64 * 128 not in kept  # no weight that was written out outlives its product
    for part in model.modules():
        if hasattr(part, "strategy"):
            part.strategy["default"] = "factored"
    factored = model(x)
    assert len(steps) == 4  # of the layer that is not quantized
    torch.testing.assert_close(output, factored, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(gradients, torch.autograd.grad(factored.square().sum(), [x, *trained]), strict=True):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_saved_and_loaded_again_and_several_adapters(quantized_format, tmp_path):
    model = adapted(quantized_format)
    expected = model(batch())
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(quantized(quantized_format), tmp_path, is_trainable=True).eval()
    assert torch.equal(loaded(batch()), expected)
    model.add_adapter("second", random_config(target_modules=TARGETS[1:], r=2))
    model.set_adapter("second")
    assert (model(batch()) - expected).abs().max() > 1e-2
    model.set_adapter("default")
    torch.testing.assert_close(model(batch()), expected)


def test_a_merge_rounds_to_the_format_with_a_warning(quantized_format):
    if quantized_format.step is None:
        pytest.skip("this format is not written")
    model = adapted(quantized_format)
    layers = adapted_layers(model)
    sums = {}
    for name, layer in layers.items():
        (matrix,) = randlora_matrices(layer)
        sums[name] = read_weight(layer.base_layer).float() + matrix.float()
    kinds = [type(layer.base_layer) for layer in layers.values()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.merge_adapter()
    ours = [str(w.message) for w in caught if "rounded to" in str(w.message)]
    assert len(ours) == 2
    assert [type(layer.base_layer) for layer in layers.values()] == kinds
    for name, layer in layers.items():
        step = 1e-6 if name == "0.weight" else quantized_format.step
        written = read_weight(layer.base_layer).float()
        assert (written - sums[name]).abs().max() <= step * sums[name].abs().max(), name
    # The merged model is the plain one of the merged weights.
    merged = model(batch())
    literal = plain()
    for index in (0, 2, 4):
        literal[index].weight.data = read_weight(layers[f"{index}.weight"].base_layer).float()
    assert (merged - literal(batch())).abs().max() <= 0.02 * merged.abs().max()  # bfloat16 in some kernels
    unloaded = model.merge_and_unload()
    assert torch.equal(unloaded(batch()), merged)
    assert [type(part) for part in unloaded] == [type(part) for part in quantized(quantized_format)]


def test_a_safe_merge_is_refused_before_any_layer_is_merged(quantized_format):
    model = adapted(quantized_format)
    expected = model(batch())
    message = r"that a sum can be written to" + ("" if quantized_format.step is None else " exactly")
    for merge in (lambda: model.merge_adapter(safe_merge=True), lambda: model.merge_and_unload(safe_merge=True)):
        with pytest.raises(LayerError, match=message) as caught:
            merge()
        assert "\n" not in str(caught.value)
    if quantized_format.step is None:
        with pytest.raises(LayerError, match="load the model without quantization"):
            model.merge_adapter()
    assert torch.equal(model(batch()), expected)
    assert not any(layer.merged for layer in adapted_layers(model).values())


def test_dropout_autocast_and_copies(quantized_format):
    model = adapted(quantized_format, dropout=0.5)
    exact = model(batch())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch())
    assert (output.float() - exact).abs().max() <= 0.05 * exact.abs().max()
    model.train()
    assert not torch.allclose(model(batch()), model(batch()))
    copied = copy.deepcopy(model).eval()(batch())
    assert (copied - exact).abs().max() <= quantized_format.near * exact.abs().max()


def test_reading_and_writing_a_4_bit_weight_that_inference_has_repacked():
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    layer = bitsandbytes(nn.Linear(128, 64), quant_type="nf4", compress_statistics=False).eval()
    before = read_weight(layer)
    layer.support_avx512bf16_for_cpu = bnb.functional.has_avx512bf16()
    with torch.no_grad():
        layer(torch.randn(3, 128))
        if not getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
            pytest.skip("this processor has no AVX512-BF16")
        assert (read_weight(layer) - before).abs().max() <= 0.01 * before.abs().max()
        write_weight(layer, before)
        assert (read_weight(layer) - before).abs().max() <= 0.01 * before.abs().max()
        assert layer.weight.quant_state.dtype == torch.float32


class Clipped(nn.Linear):
    def forward(self, x):
        return super().forward(x).clamp(-0.1, 0.1)


@pytest.mark.parametrize("quantize", [lambda layer: layer, FORMATS["int8 of torchao"].quantize], ids=["plain", "int8"])
def test_a_linear_layer_with_a_forward_of_its_own_is_called(quantize):
    torch.manual_seed(0)
    layer = quantize(Clipped(40, 64))
    model = peft.get_peft_model(nn.Sequential(layer), random_config(target_modules=["0"], strategy="folded"))
    update = batch() @ model.base_model.model[0].get_delta_weight("default").T
    torch.testing.assert_close(model(batch()), layer(batch()) + update, rtol=1e-4, atol=1e-4)
    with pytest.warns(UserWarning, match="Clipped has a forward of its own"):
        model.merge_adapter()


def test_a_quantized_layer_that_is_no_linear_one_is_refused():
    form = Format(lambda layer: torchao(layer, "Int8WeightOnlyConfig"), None)
    model = nn.Sequential(nn.Embedding(64, 40))
    model[0].weight = form.quantize(nn.Linear(40, 64)).weight
    with pytest.raises(LayerError, match=r"'0'.*quantized linear layer"):
        peft.get_peft_model(model, RandLoraConfig(target_modules=["0"]))
