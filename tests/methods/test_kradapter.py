"""KRAdapter against the Khatri-Rao product written out, entry by entry."""

import peft
import pytest
import torch
from torch import nn

from every_method import fill
from literal import khatri_rao
from randlora.methods import KRAdapterConfig

SHAPES = [(29, 13), (11, 29), (5, 5), (16, 4), (1, 7), (7, 1), (1, 1), (3, 2), (10, 9)]


@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_values_and_all_gradients(out, inner):
    base = nn.Linear(inner, out).double()
    model = peft.get_peft_model(nn.Sequential(base), KRAdapterConfig(target_modules=["0"], alpha=1.5))
    fill(model)
    A, B = model.base_model.model[0].trained("default")
    k = int(max(out, inner) ** 0.5)
    assert A.shape == (min(out, inner), -(-max(out, inner) // k))
    assert B.shape == (min(out, inner), k)
    x = torch.randn(6, inner, dtype=torch.float64, requires_grad=True)
    found = model(x)
    expected = x @ (base.weight + khatri_rao(A, B, out, inner, 1.5)).T + base.bias
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    gradients = (torch.autograd.grad((y * weights).sum(), (x, A, B)) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("out", "inner"), [(32, 32), (48, 20), (20, 48), (31, 29)])
def test_the_rank_is_full(out, inner):
    model = fill(peft.get_peft_model(nn.Sequential(nn.Linear(inner, out)), KRAdapterConfig(target_modules=["0"])))
    delta = model.base_model.model[0].get_delta_weight("default").double()
    assert torch.linalg.matrix_rank(delta) == min(out, inner)
