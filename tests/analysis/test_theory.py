"""Fits against what is known: Eckart and Young's error, a ΔW of the method's own, a count of dimensions."""

import peft
import pytest
import torch

from every_method import fill
from randlora.adapter import AdapterLayer
from randlora.analysis.theory import fitted_error, lora_error, targets
from randlora.methods.randlora import RandLoraConfig


def test_loras_error_is_that_of_the_nearest_matrix():
    target = targets(40, 33, 1)["random"]
    U, S, Vh = torch.linalg.svd(target)
    nearest = U[:, :5] * S[:5] @ Vh[:5]
    assert lora_error(target, 5) == pytest.approx(float((target - nearest).norm() / target.norm()))
    assert lora_error(targets(40, 33, 1)["rank 4"], 4) < 1e-12


@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_a_delta_of_the_methods_own_is_found(bases):
    config = RandLoraConfig(bases=bases, r=4, target_modules=["0"])
    net = torch.nn.Sequential(torch.nn.Linear(12, 20, bias=False).double())
    model = fill(peft.get_peft_model(net, config))
    layer = next(module for module in model.modules() if isinstance(module, AdapterLayer))
    target = layer.delta_weight("default").detach()
    error, numbers = fitted_error(target, config, 500)
    assert error < 0.05
    assert numbers == 3 * (4 + 12)


def test_random_targets_are_met_as_far_as_the_numbers_go():
    target = targets(48, 32, 0)["random"]
    error, numbers = fitted_error(target, RandLoraConfig(bases="structured", r=4, target_modules=["0"]), 300)
    assert error == pytest.approx((1 - numbers / target.numel()) ** 0.5, abs=0.03)
