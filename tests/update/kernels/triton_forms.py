"""The Triton forms against the PyTorch forms, equation 4 and autograd; run by test_triton.py, in a process of its own.

With TRITON_INTERPRET=1 in Triton's interpreter on the CPU, else on the first CUDA device.
"""

import os

import numpy as np
import pytest
import torch

import randlora.update
from randlora.update import linear, structured
from randlora.update.kernels import (
    fold,
    fold_triton,
    gradients,
    gradients_triton,
    structured_fold,
    structured_gradients,
)
from randlora.update.kernels.fold import structured_fold_torch
from randlora.update.kernels.fold_triton import structured_fold_triton
from randlora.update.kernels.gradients import structured_gradients_torch
from randlora.update.kernels.gradients_triton import structured_gradients_triton

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (r, m, M): whole and short blocks, M no multiple of n, r > m, n = 1, r = 1, several tiles.
SHAPES = [(3, 8, 11), (5, 13, 22), (9, 4, 11), (13, 13, 13), (1, 11, 12), (16, 48, 64), (7, 150, 301), (1, 259, 260)]
everywhere = [pytest.mark.parametrize("dtype", DTYPES, ids=str), pytest.mark.parametrize("shape", SHAPES, ids=str)]


def _everywhere(test):
    for mark in everywhere:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def _poisoned_memory():
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _bfloat16_in_the_interpreter(monkeypatch):
    """The interpreter holds bfloat16 as uint16 and multiplies these integers in tl.dot; widen them first."""
    if not INTERPRETED:
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot = InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    monkeypatch.setattr(
        InterpreterBuilder, "create_dot", lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest)
    )


@pytest.fixture
def switched_on(monkeypatch):
    """As on CUDA with RANDLORA_TRITON=1."""
    for module in (structured, fold, gradients):
        monkeypatch.setattr(module, "available", lambda _: True)
    monkeypatch.setattr(linear, "scratch_like", lambda *_: None)


def rounded(exact, dtype):
    """Float32 rounded once; where the interpreter cuts bfloat16 off, cut off."""
    if INTERPRETED and dtype == torch.bfloat16:
        return (exact.view(torch.int32) & -0x10000).view(torch.float32).to(dtype)
    return exact.to(dtype)


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape, device=DEVICE).to(dtype)


def layer(shape, dtype, *, turned=False):
    """A weight (M, m), F (n, m) and L."""
    r, small, large = shape
    n = -(-small // r)
    weight = normal(small, large, dtype=dtype).T if turned else normal(large, small, dtype=dtype)
    return weight, normal(n, small, dtype=dtype), normal(-(-large // n), r).sign().to(dtype)


@_everywhere
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_fold(shape, dtype, turned):
    weight, update, left = layer(shape, dtype, turned=turned)
    found = structured_fold_triton(weight, update, left)
    exact = structured_fold_torch(weight.float(), update, left)
    assert found.stride() == weight.stride()
    torch.testing.assert_close(found, rounded(exact, dtype), rtol=0, atol=0)


def test_fold_of_other_dtypes_and_of_views():
    weight, update, left = layer((5, 13, 22), torch.float32)
    low = update.bfloat16(), left.bfloat16()
    found = structured_fold_triton(weight, *low)
    torch.testing.assert_close(found, structured_fold_torch(weight, *low), rtol=0, atol=0)
    wide = normal(44, 39)[::2, ::3]  # neither row by row nor column by column
    turned = update.T.contiguous().T, left.T.contiguous().T
    found = structured_fold_triton(wide, *turned)
    torch.testing.assert_close(found, structured_fold_torch(wide, update, left), rtol=0, atol=0)


def move(case):
    """A case of the CPU in float32 on the device."""
    for name in ("x", "weight", "bias", "lambda_", "gamma"):
        tensor = getattr(case, name).detach().to(DEVICE, torch.float32)
        setattr(case, name, tensor.requires_grad_(name != "weight"))
    case.form = case.form._make(t.to(DEVICE, torch.float32) for t in case.form)


@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
@pytest.mark.parametrize("small_is_input", [True, False], ids=["in<=out", "out<=in"])
def test_a_layer_is_equation_4(make_case, switched_on, shape, small_is_input):
    case = make_case("structured", *shape, small_is_input=small_is_input)
    expected = case.expected()
    direction = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, case.leaves, direction)
    move(case)
    found = case.by(randlora.update, "folded")
    ours = torch.autograd.grad(found, case.leaves, direction.to(found))
    for mine, exact in zip((found, *ours), (expected, *theirs), strict=True):
        # Float32: some hundred roundings of 2⁻²⁴ at most, errors and sizes in the norm.
        assert (mine.double().cpu() - exact).norm() < 2.0**-17 * exact.norm()


def test_a_layer_runs_the_kernels(make_case, switched_on, monkeypatch):
    called = []
    for module, name in ((fold_triton, "structured_fold"), (gradients_triton, "structured_gradients")):
        form = getattr(module, f"{name}_triton")
        monkeypatch.setattr(module, f"{name}_triton", lambda *a, n=name, f=form: called.append(n) or f(*a))
    case = make_case("structured", 3, 8, 11)
    move(case)
    case.by(randlora.update, "folded").sum().backward()
    assert sorted(called) == ["structured_fold", "structured_fold", "structured_gradients"]


def gradients_of(shape, dtype, *, strided=False):
    """A gradient by slots whose padding is NaN, λ, γ, g."""
    r, small, _ = shape
    n = -(-small // r)
    gradient = normal(n, n, r, dtype=dtype).transpose(1, 2) if strided else normal(n, r, n, dtype=dtype)
    gradient[:, small - r * (n - 1) :, n - 1] = torch.nan
    return gradient, normal(n, r), normal(n, small), 0.37


@_everywhere
def test_gradients(shape, dtype):
    gradient, lambda_, gamma, scaling = gradients_of(shape, dtype)
    found = structured_gradients_triton(gradient, lambda_, gamma, scaling)
    exact = structured_gradients_torch(gradient.double(), lambda_.double(), gamma.double(), scaling)
    # dγ is two products and the rounded g; a dλ is a sum of n of them, its error counts against the sum of their sizes.
    torch.testing.assert_close(found[1].double(), exact[1], rtol=4 * 2.0**-24, atol=0)
    terms = structured_gradients_torch(gradient.double().abs(), lambda_.double(), gamma.double().abs(), scaling)[0]
    assert ((found[0] - exact[0]).abs() <= (gamma.shape[0] + 4) * 2.0**-24 * terms).all()


def test_gradients_of_views():
    gradient, lambda_, gamma, scaling = gradients_of((5, 13, 22), torch.float32, strided=True)
    found = structured_gradients_triton(gradient, lambda_.T.contiguous().T, gamma.T.contiguous().T, scaling)
    assert all(t.is_contiguous() for t in found)
    for mine, exact in zip(found, structured_gradients_torch(gradient, lambda_, gamma, scaling), strict=True):
        torch.testing.assert_close(mine, exact)


def test_the_operators_choose_the_triton_forms(switched_on):
    layers = layer((5, 13, 22), torch.float32)
    torch.testing.assert_close(structured_fold(*layers), structured_fold_triton(*layers), rtol=0, atol=0)
    given = gradients_of((5, 13, 22), torch.float32)
    given[0].nan_to_num_()
    for mine, exact in zip(structured_gradients(*given), structured_gradients_triton(*given), strict=True):
        torch.testing.assert_close(mine, exact, rtol=0, atol=0)
