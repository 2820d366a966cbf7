"""Products with B by its nonzero entries: their values, and that large products are made that way."""

import pytest
import torch

from randlora.bases import DenseBases
from randlora.update import DenseForm
from randlora.update.scratch import eager_on_cpu
from sizes import sizes

CPU = torch.device("cpu")
R, SMALL, LARGE = 3, 22, 37


@pytest.fixture(autouse=True)
def _as_in_an_autograd_function():
    with torch.no_grad():
        yield


def _operators(sparsity, dtype=torch.float64):
    """The operator with B by rows, and the dense one."""
    of = sizes(R, SMALL, LARGE)
    form = DenseBases("ternary", 1, sparsity).form(of, CPU, dtype)
    return form.operator(of), DenseForm(form.A, form.B).operator(of)


@pytest.mark.parametrize("sparsity", [16.0, 20.0, 100.0, 1e9], ids=str)  # of the last, every entry is zero
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_products_by_rows(sparsity, dtype):
    operator, dense = _operators(sparsity, dtype)
    assert operator.sparse.density() == dense.B.count_nonzero() / dense.B.numel()
    for sparse, matrix in ((operator.sparse.by_rows, dense.B), (operator.sparse.transposed, dense.B.T)):
        for columns in (0, 1, 5, 64):
            right = torch.randn(matrix.shape[1], columns, dtype=dtype)
            torch.testing.assert_close(sparse.times(right), matrix @ right)
            torch.testing.assert_close(sparse.times(right.T.contiguous().T), matrix @ right)


def test_large_products_are_sparse():
    operator, dense = _operators(20.0)
    dense.B.fill_(torch.nan)  # which is the B of the other, too
    exact, _ = _operators(20.0)
    lambda_, gamma = torch.randn(-(-SMALL // R), R).double(), torch.randn(-(-SMALL // R), SMALL).double()
    C = operator.coefficients(lambda_, gamma, 1.0, torch.float64)
    weight = torch.randn(LARGE, SMALL).double()
    for layout in (weight, weight.T.contiguous().T):
        folded = operator.fold(C, layout)
        torch.testing.assert_close(folded, weight + exact.B @ C.matrix())
        out = torch.empty_like(layout)
        assert torch.equal(operator.fold(C, layout, out=out), folded)
        assert torch.equal(out, folded)
    for tokens in (16, 600):  # by way of large · B, and of G
        large, small = torch.randn(tokens, LARGE).double(), torch.randn(tokens, SMALL).double()
        torch.testing.assert_close(operator.project(large), large @ exact.B)
        found = operator.gradients(large, small, lambda_, gamma, 1.0)
        for ours, theirs in zip(found, exact.gradients(large, small, lambda_, gamma, 1.0), strict=True):
            torch.testing.assert_close(ours, theirs)
            assert ours.isfinite().all()


def test_a_weight_of_a_wider_dtype_keeps_its_bits():
    operator, _ = _operators(20.0, torch.bfloat16)
    lambda_, gamma = torch.zeros(-(-SMALL // R), R), torch.ones(-(-SMALL // R), SMALL)
    weight = torch.randn(LARGE, SMALL)
    assert torch.equal(operator.fold(operator.coefficients(lambda_, gamma, 1.0, torch.bfloat16), weight), weight)


def test_where_products_are_dense():
    operator, dense = _operators(20.0)
    few = torch.randn(3, LARGE).double()
    assert torch.equal(operator.project(few), few @ dense.B)
    assert not eager_on_cpu(torch.ones(1, device="meta"))
    with torch.enable_grad():
        lambda_ = torch.randn(-(-SMALL // R), R).double().requires_grad_()
        gamma = torch.randn(-(-SMALL // R), SMALL).double()
        weight = torch.randn(LARGE, SMALL).double()
        for one in (operator, dense):
            one.fold(one.coefficients(lambda_, gamma, 1.0, torch.float64), weight).sum().backward()
            assert lambda_.grad.isfinite().all()
            lambda_.grad.neg_()  # so that the same again adds up to zero
    torch.testing.assert_close(lambda_.grad, torch.zeros_like(lambda_))
