"""bfloat16: near the float64 result of the same (already rounded) inputs, by a bound that counts the roundings."""

from dataclasses import replace
from math import sqrt

import pytest
import torch

FAMILIES = ("uniform", "ternary-20", "structured", "peft")  # the others are dense as uniform ones
SHAPES = [(4, 48, 64), (8, 96, 96), (16, 61, 131), (13, 61, 62)]

# A value rounded to bfloat16 is off by at most u = 2⁻⁸ of itself. A matrix product sums L products in float32 and is
# rounded once, so it adds u and L · 2⁻²⁴, L at most 200 here (2⁻¹⁶, far below u). Roundings are independent: in the
# norm of the whole matrix their relative errors do not grow in a sum, and those of k in a chain add up as squares,
# √k · u. (The root mean square of one rounding is u/√3, so the bound has a factor of 1.7 to spare.)
UNIT = 2.0**-8
LONGEST_SUM = 200
# C, hidden, (structured: between the two transforms,) update; base output, sum.
OUTPUT_ROUNDINGS = {"added": 6, "factored": 6, "folded": 5}
# project (structured: twice) or G, dC.
GRADIENT_ROUNDINGS = 3


def _relative_error(found, expected, size=None):
    size = expected if size is None else size
    return ((found.double() - expected).norm() / size.norm()).item()


def _bound(roundings):
    return sqrt(roundings) * (UNIT + LONGEST_SUM * 2.0**-24)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", list(OUTPUT_ROUNDINGS))
@pytest.mark.parametrize("small_is_input", [True, False], ids=["in<=out", "out<=in"])
def test_bfloat16_is_near_float64(update, make_case, family, strategy, small_is_input):
    for shape in SHAPES:
        for tokens in (3, 150):
            _is_near(update, make_case, family, strategy, small_is_input, shape, tokens)


def _is_near(update, make_case, family, strategy, small_is_input, shape, tokens):
    low = make_case(family, *shape, small_is_input=small_is_input, batch=(tokens,), dtype=torch.bfloat16)
    if family == "peft":  # its entries fill float32: the judge takes them as rounded
        low.A, low.B = (t.double() for t in low.form)
    high = make_case(family, *shape, small_is_input=small_is_input, batch=(tokens,))
    high.A, high.B = low.A, low.B
    for name in ("x", "weight", "bias", "lambda_", "gamma"):
        tensor = getattr(low, name).detach().double()
        setattr(high, name, tensor.requires_grad_(name != "weight"))

    found, expected = low.by(update, strategy), high.expected()
    assert found.dtype == torch.bfloat16
    # The parts may cancel in the sum, their errors do not.
    parts = torch.cat([high.x @ high.weight.T + high.bias, high.x @ high.equation_4().T])
    assert _relative_error(found, expected, parts.detach()) < _bound(OUTPUT_ROUNDINGS[strategy])

    direction = torch.randn_like(found)
    ours = torch.autograd.grad(found, low.leaves, direction)
    theirs = torch.autograd.grad(expected, high.leaves, direction.double())
    assert [t.dtype for t in ours] == [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
    dx_parts = torch.cat([direction.double() @ high.weight, direction.double() @ high.equation_4()]).detach()
    assert _relative_error(ours[0], theirs[0], dx_parts) < _bound(OUTPUT_ROUNDINGS[strategy])
    for mine, exact in zip(ours[1:3], theirs[1:3], strict=True):
        assert _relative_error(mine, exact) < _bound(GRADIENT_ROUNDINGS)
    assert _relative_error(ours[3], theirs[3]) < _bound(1)


@pytest.mark.parametrize("family", ["uniform", "structured"])
def test_a_float32_weight_is_rounded_after_the_sum(update, make_case, family):
    case = make_case(family, 4, 32, 32, dtype=torch.bfloat16, bias=False)
    case.weight = 1.25 + torch.rand(32, 32) / 2
    case.lambda_, case.gamma = case.lambda_.detach().double(), case.gamma.detach().double()
    scaling = case.scaling * 2.0**-6 / case.equation_4().abs().max().item()
    case.spec = replace(case.spec, scaling=scaling)
    exact = case.weight + case.equation_4()
    case.x, case.lambda_, case.gamma = torch.eye(32).bfloat16(), case.lambda_.float(), case.gamma.float()
    # Between 1 and 2 half a step is 2⁻⁸; ΔW below 2⁻⁶ adds two roundings of its own of 2⁻¹⁴. A weight that was rounded
    # first would be up to another 2⁻⁸ off.
    assert (case.by(update, "folded").double().T - exact).abs().max() <= 2.0**-8 + 2 * 2.0**-14
