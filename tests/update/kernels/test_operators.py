"""The operators as PyTorch sees them, and their PyTorch forms against the strategies and equation 4."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from randlora.errors import UpdateError
from randlora.update import Plan, Sizes, StructuredForm, UpdateSpec, adapted_linear, kernels, structured
from randlora.update.dispatch import FOLDED
from randlora.update.kernels import structured_fold, structured_gradients

SHAPES = [(3, 8, 11), (5, 13, 22), (9, 4, 11), (13, 13, 13), (1, 11, 12), (16, 48, 64)]


def _structured(make_case, shape, dtype=torch.float64):
    case = make_case("structured", *shape, dtype=dtype)
    operator = case.form.operator(case.spec.sizes)
    slots = operator.coefficients(case.lambda_.detach(), case.gamma.detach(), case.scaling, dtype)
    n, r = case.lambda_.shape
    whole = case.spec.sizes.small - r * (n - 1)
    columns = torch.cat([slots[:, k, : n if k < whole else n - 1] for k in range(r)], dim=1)
    return case, operator, columns


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_fold_is_equation_4(make_case, shape, turned):
    case, operator, columns = _structured(make_case, shape)
    weight = case.weight.T.contiguous().T if turned else case.weight
    found = structured_fold(weight, columns, operator.left)
    assert found.stride() == weight.stride()
    torch.testing.assert_close(found, case.weight + case.equation_4().detach(), rtol=1e-12, atol=1e-12)


def test_fold_rounds_once():
    weight, update, left = torch.rand(6, 6) + 1, torch.rand(2, 6) / 200, torch.ones(3, 3)
    low = [t.bfloat16() for t in (weight, update, left)]
    exact = low[0].float() + low[1].float().repeat(3, 1)
    assert torch.equal(structured_fold(*low), exact.bfloat16())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_autograd(make_case, shape):
    case, operator, _ = _structured(make_case, shape)
    n, r = case.lambda_.shape
    gradient = torch.randn(n, r, n, dtype=torch.float64)
    identity = torch.eye(n, dtype=torch.float64)
    without_rotation = type(operator)(operator.small, operator.large, n, operator.left, identity[:1, :1], identity)
    slots = without_rotation.coefficients(case.lambda_, case.gamma, case.scaling, torch.float64)
    expected = torch.autograd.grad((slots * gradient).sum(), [case.lambda_, case.gamma])
    gradient[:, case.spec.sizes.small - r * (n - 1) :, n - 1] = torch.nan  # the slots that are no columns
    found = structured_gradients(gradient, case.lambda_.detach(), case.gamma.detach(), case.scaling)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def ones(*shape):
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (structured_fold, (ones(6, 6), ones(2, 5), ones(3, 3)), r"update \(n, 6\).*got update \(2, 5\)"),
        (structured_fold, (ones(6, 6), ones(2, 6), ones(4, 3)), r"left \(⌈6/n⌉, r\).*left \(4, 3\)"),
        (structured_gradients, (ones(2, 3, 1), ones(2, 3), ones(2, 6), 1.0), r"got gradient \(2, 3, 1\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(function, arguments, message):
    with pytest.raises(UpdateError, match=message):
        function(*arguments)


def _calls(dtype):
    """Each operator with arguments of whole and of short blocks."""
    weight, update, left = torch.randn(13, 22).T.to(dtype), torch.randn(3, 13).to(dtype), torch.ones(8, 5).to(dtype)
    return {
        "structured_fold": (weight, update, left),
        "structured_gradients": (torch.randn(3, 5, 3), torch.randn(3, 5), torch.randn(3, 13), 0.3),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(_calls(torch.float32)))
def test_pytorch_finds_the_operators_well_defined(name, dtype):
    operator = getattr(torch.ops.randlora, name).default
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic")
    torch.library.opcheck(operator, _calls(dtype)[name], test_utils=tests)


def test_compiled_whole_and_under_autocast():
    calls = _calls(torch.float32)

    def step(calls):
        with torch.autocast("cpu", torch.bfloat16):
            return [
                structured_fold(*calls["structured_fold"]),
                *structured_gradients(*calls["structured_gradients"]),
            ]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(calls)
    for got, wanted in zip(compiled, step(calls), strict=True):
        assert got.dtype == torch.float32
        assert got.stride() == wanted.stride()
        assert torch.equal(got, wanted)


@pytest.mark.slow
def test_a_compiled_layer_has_them_in_its_graph(make_case, monkeypatch):
    case = make_case("structured", 3, 8, 11, dtype=torch.float32)
    # The plain classes: the checked ones cannot be traced.
    spec = UpdateSpec(Sizes(*case.spec.sizes), case.spec.small_is_input, case.scaling)
    form = StructuredForm(*case.form)
    graphs = []

    def compiler(graph, _):
        graphs.append(str(graph.code))
        return make_boxed_func(graph.forward)

    def layer(x, lambda_, gamma):
        return adapted_linear(x, case.weight, case.bias, lambda_, gamma, spec, form, Plan(FOLDED, FOLDED))

    def step(layer):
        output = layer(case.x, case.lambda_, case.gamma)
        return output, *torch.autograd.grad(output.square().sum(), case.leaves)

    expected = step(layer)
    monkeypatch.setattr(structured, "available", lambda _: not torch.is_grad_enabled())  # as on CUDA
    backend = aot_autograd(fw_compiler=compiler, bw_compiler=compiler)
    for ours, theirs in zip(step(torch.compile(layer, fullgraph=True, backend=backend)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    forward, backward = graphs
    assert "randlora.structured_fold" in forward
    assert "randlora.structured_fold" in backward
    assert "randlora.structured_gradients" in backward


def test_a_derivative_is_refused_rather_than_left_out():
    weight, update, left = _calls(torch.float32)["structured_fold"]
    with pytest.raises(RuntimeError, match=r"structured_fold.*no autograd formula"):
        structured_fold(weight.requires_grad_(), update, left).sum().backward()


def test_available_is_for_cuda_and_opt_in(monkeypatch):
    class Cuda:
        is_cuda, dtype = True, torch.bfloat16

    class Double(Cuda):
        dtype = torch.float64

    assert not kernels.available(Cuda())
    monkeypatch.setattr(kernels.selection, "_REQUESTED", True)
    assert not kernels.available(Cuda())  # autograd would record
    with torch.no_grad():
        assert kernels.available(Cuda())
        assert not kernels.available(Double())
        assert not kernels.available(torch.ones(3))
