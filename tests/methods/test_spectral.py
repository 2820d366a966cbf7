"""What is particular to adapters with bases from the weight: size and rank of ΔW, the strategies, merging."""

import peft
import pytest
import torch
from torch import nn

from networks import Net, rows
from randlora import fold_once
from randlora.methods import SpectralConfig

CPU = torch.device("cpu")
SHAPES = [(29, 13), (11, 29), (12, 12)]


def layer_of(shape, r, dtype=torch.float64, **options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(shape[1], shape[0], dtype=dtype))
    return peft.get_peft_model(model, SpectralConfig(r=r, target_modules=["0"], **options))


def randomize(model):
    generator = torch.Generator().manual_seed(4)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    return model


@pytest.mark.parametrize("r", [1, 3, 4, 7, 11])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rank_is_full_and_no_number_is_dead(shape, r):
    model = randomize(layer_of(shape, r))
    delta = model.base_model.model[0].get_delta_weight("default")
    assert torch.linalg.matrix_rank(delta) == min(shape)
    model(torch.randn(9, shape[1], dtype=torch.float64)).square().sum().backward()
    for parameter in (p for p in model.parameters() if p.requires_grad):
        assert (parameter.grad.abs() > 1e-12).all()


@pytest.mark.parametrize("shape", [(24, 12), (12, 24), (12, 12)])
def test_alpha_means_what_it_means_for_bases_of_unit_variance(shape):
    model = layer_of(shape, 4)
    layer = model.base_model.model[0]
    gamma = layer.randlora_gamma["default"].weight
    gamma.data = 0.1 * torch.randn_like(gamma).sign()
    g = 8 * 4**0.5 / 12 ** (4 / 3)
    # n·r = 12 terms of unit variance, times g·|γ|; the rounding of the bases leaves a thousandth.
    torch.testing.assert_close(
        layer.get_delta_weight("default").square().mean(), torch.tensor(12 * (0.1 * g) ** 2).double(), rtol=2e-3, atol=0
    )


def test_an_adapter_made_in_inference_mode_has_bases_to_train_with():
    with torch.inference_mode():
        layer = layer_of((6, 5), 2).base_model.model[0]
    assert not any(t.is_inference() for t in layer.form("default", CPU, torch.float32))


@pytest.mark.parametrize("strategy", ["folded", "factored", "auto"])
def test_the_strategies_agree(strategy):
    x = rows().double()
    results = []
    for each in ("reference", strategy):
        config = SpectralConfig(r=3, alpha=2.0, strategy=each, target_modules=["a", "b", "c"])
        model = randomize(peft.get_peft_model(Net().double(), config))
        output = model(x)
        output.square().sum().backward()
        with fold_once(model):
            torch.testing.assert_close(model(x), output)
        results.append([output, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert len(results[0]) == 7
    for wanted, got in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_a_second_adapter_has_the_bases_of_the_weight_alone():
    model = randomize(layer_of((11, 13), 4))
    layer = model.base_model.model[0]
    model.merge_adapter()
    model.unmerge_adapter()
    model.add_adapter("second", SpectralConfig(r=4, target_modules=["0"]))
    first, second = (layer.form(name, CPU, torch.float64) for name in ("default", "second"))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merging_into_half_precision_is_within_its_rounding(dtype):
    model = layer_of((24, 16), 4, dtype)
    gamma = model.base_model.model[0].randlora_gamma["default"].weight
    gamma.data = 0.02 * torch.randn_like(gamma)
    assert gamma.dtype == torch.float32
    x = torch.randn(7, 16, dtype=dtype)
    expected = model(x)
    with model.disable_adapter():
        plain = model(x)
    model.merge_adapter(safe_merge=True)
    # Rounding of the merged weight, of size ≤ 0.25 + |ΔW|, and of the products: some units of the last place.
    tolerance = 16 * torch.finfo(dtype).eps
    assert (expected - plain).abs().max() > 2 * tolerance
    torch.testing.assert_close(model(x), expected, rtol=tolerance, atol=tolerance)
