"""Singular vectors: what they rebuild, their signs, and the bases made of them."""

import pytest
import torch

from randlora.bases import SpectralBases
from randlora.bases.spectral import decompose
from sizes import sizes

CPU = torch.device("cpu")
SHAPES = [(29, 13), (11, 29), (7, 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_rebuild_the_rounded_weight_and_have_one_sign(shape):
    W = torch.randn(shape).bfloat16().double()
    k = min(shape)
    U, sigma, V = decompose(W, k)
    torch.testing.assert_close(U * sigma @ V.T, W)
    # The sign is settled by U alone.
    flipped = decompose(-W, k)
    torch.testing.assert_close(flipped.U, U)
    torch.testing.assert_close(flipped.V, -V)
    small = decompose(W, 3)
    assert torch.equal(small.U, U[:, :3])
    assert torch.equal(small.V, V[:, :3])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bases_are_the_same_numbers_in_every_dtype(shape):
    bases = SpectralBases(torch.randn(shape), 5)
    of = sizes(5, min(shape), max(shape))
    first = [t.clone() for t in bases.form(of, CPU, torch.float64)]
    assert [t.shape for t in first] == [(5, min(shape)), (max(shape), 5 * -(-min(shape) // 5))]
    for dtype, size in ((torch.float16, 2), (torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 4)):
        assert all(torch.equal(t.double(), w) for t, w in zip(bases.form(of, CPU, dtype), first, strict=True))
        assert bases.stored_bytes() == size * sum(t.numel() for t in first)
