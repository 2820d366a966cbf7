"""A product of two trained matrices added in the layer's own step: against the layer and the product one by one."""

import pytest
import torch
import torch.nn.functional as F

from .conftest import PLANS

RANK = 3


@pytest.fixture(params=["uniform", "structured", "separate"])
def family(request):
    return request.param


@pytest.fixture(params=[*PLANS, "held"])
def strategy(request):
    return request.param


def _pair(case):
    outputs, inputs = case.weight.shape
    return [torch.randn(*shape, dtype=case.x.dtype, requires_grad=True) for shape in ((RANK, inputs), (outputs, RANK))]


def _by(update, case, strategy, pair):
    form = getattr(update, type(case.form).__name__)(*case.form)
    shared = (case.lambda_, case.gamma, case.spec, form, update.Plan(*PLANS.get(strategy, PLANS["folded"])))
    held = (case.weight + case.equation_4()).detach() if strategy == "held" else None
    return update.adapted_linear(case.x, case.weight, case.bias, *shared, held, tuple(pair))


@pytest.mark.parametrize("small_is_input", [True, False], ids=["in<=out", "out<=in"])
@pytest.mark.parametrize("batch", [(5,), (0,), (2, 3), ()])
def test_output_and_gradients(update, make_case, family, strategy, small_is_input, batch):
    case = make_case(family, 5, 13, 17, small_is_input=small_is_input, batch=batch)
    pair = _pair(case)
    found = _by(update, case, strategy, pair)
    expected = case.expected() + F.linear(F.linear(case.x, pair[0]), pair[1])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    direction = torch.randn_like(expected)
    leaves = [*case.leaves, *pair]
    for ours, theirs in zip(
        *(torch.autograd.grad(output, leaves, direction) for output in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("frozen", range(3))
def test_what_wants_no_gradient_gets_none(update, make_case, frozen):
    case = make_case("structured", 5, 13, 17)
    pair = _pair(case)
    leaves = [case.x, *pair]
    leaves[frozen].requires_grad_(False)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(_by(update, case, "folded", pair).sum(), wanted)
    expected = torch.autograd.grad((case.expected() + case.x @ pair[0].T @ pair[1].T).sum(), wanted)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_finite_differences_agree(update, make_case):
    case = make_case("structured", 2, 4, 5, batch=(3,))

    def output(x, down, up):
        case.x = x
        return _by(update, case, "factored", (down, up))

    assert torch.autograd.gradcheck(output, (case.x, *_pair(case)))
