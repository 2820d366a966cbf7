"""The method's claim: ΔW has rank m for random λ and γ; and where a sparse basis breaks it, by how much."""

from math import sqrt

import pytest
import torch

from randlora.bases import DenseBases, StructuredBases
from randlora.update import UpdateSpec, delta_weight, reference_delta_weight
from sizes import sizes

CPU = torch.device("cpu")
SHAPES = [(1, 7, 9), (1, 24, 24), (4, 24, 24), (5, 24, 40), (24, 24, 24), (30, 24, 31), (8, 61, 61), (16, 64, 256)]
FULL = {
    "uniform": lambda: DenseBases("uniform", 0),
    "normal": lambda: DenseBases("normal", 0),
    "ternary 2": lambda: DenseBases("ternary", 0, 2.0),
    "structured": lambda: StructuredBases(0),
    "separate A": lambda: DenseBases("uniform", 0, separate=True),
}


def _rank(bases, r, small, large, bases_count=None):
    of = sizes(r, small, large, bases_count)
    A, B = bases.form(of, CPU, torch.float64).operator(of).pair()
    lambda_, gamma = (torch.randn(of.num_bases, side, dtype=torch.float64) for side in (r, small))
    delta = reference_delta_weight(A, B, lambda_, gamma, 1.0, small_is_input=True)
    return torch.linalg.matrix_rank(delta).item(), A, B


@pytest.mark.parametrize("make", FULL.values(), ids=FULL.keys())
def test_delta_weight_has_full_rank(make):
    assert {shape: _rank(make(), *shape)[0] for shape in SHAPES} == {shape: shape[1] for shape in SHAPES}


# (m, M): every remainder of small layers; nearly square, where the blocks of rows are short; layers of real models.
SMALL = [(m, M) for m in (1, 2, 3, 5, 8, 13, 16, 24, 31, 45) for M in (m, m + 1, m + 5)]
REAL = [
    (64, 64),
    (64, 384),
    (128, 128),
    (192, 192),
    (192, 576),
    (256, 256),
    (320, 384),
    (384, 384),
    (512, 512),
    (576, 576),
]
LARGE = [(768, 768), (1000, 1024), (1024, 1024)]


def _is_full(r, small, large):
    """Whether ΔW of structured bases, for random λ and γ, has rank m: R of ΔW = Q·R has no zero on its diagonal.

    A column that depends on those before it has one; rounding leaves some 1e-12 of it in float64.
    """
    of, generator = sizes(r, small, large), torch.Generator().manual_seed(r)
    lambda_, gamma = (torch.randn(of.num_bases, side, dtype=torch.float64, generator=generator) for side in (r, small))
    spec, form = UpdateSpec(of, small_is_input=True, scaling=1.0), StructuredBases(0).form(of, CPU, torch.float64)
    delta = delta_weight(spec, form, lambda_, gamma)
    diagonal = torch.linalg.qr(delta, mode="r").R.diagonal().abs()
    return bool(diagonal.min() > 1e-9 * diagonal.max())


def test_structured_bases_of_every_rank_give_full_rank():
    assert [(r, *shape) for shape in SMALL for r in range(1, shape[0] + 3) if not _is_full(r, *shape)] == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", REAL, ids=str)
def test_structured_bases_of_every_rank_give_full_rank_on_layers_of_real_models(shape):
    step = 1 if shape[0] <= 256 else 7  # every remainder that a power of two leaves, in a seventh of the time
    assert [r for r in range(1, shape[0] + 1, step) if not _is_full(r, *shape)] == []


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_structured_bases_give_full_rank_on_large_layers(shape):
    assert [r for r in (7, 13, 29, 48, 100, 333) if not _is_full(r, *shape)] == []


@pytest.mark.parametrize("make", FULL.values(), ids=FULL.keys())
@pytest.mark.parametrize("bases_count", [1, 2, 5, 19])
def test_fewer_bases_have_the_rank_of_their_sum(make, bases_count):
    for r, small, large in [(4, 24, 24), (5, 24, 40), (3, 61, 61), (7, 45, 46)]:
        if bases_count < -(-small // r):
            assert _rank(make(), r, small, large, bases_count)[0] == bases_count * r


# (s, r, m, M) -> how far the rank is below m, measured with seed 0. Column i of ΔW is g Σ_j B_j Λ_j A_i γ_ji: where A's
# column has no nonzero, a chance of (1 - 2/s)^r, so has ΔW's. That is the whole deficiency until B, too, has rows
# without a nonzero, a chance of (1 - 2/s)^(n·r). The paper's s = √m is safe for r well above s/2, not for small r.
MEASURED = {
    (6.0, 16, 64, 64): 0,
    (6.0, 4, 64, 64): 13,
    (6.0, 1, 64, 64): 39,
    (sqrt(64), 16, 64, 64): 0,
    (sqrt(64), 4, 64, 128): 20,
    (sqrt(256), 16, 256, 256): 37,
    (sqrt(256), 64, 256, 256): 0,
    (64.0, 16, 64, 64): 42,
    (200.0, 16, 64, 64): 59,
    (200.0, 64, 64, 64): 49,
    (200.0, 64, 256, 256): 137,
}


@pytest.mark.parametrize("case", MEASURED, ids=str)
def test_sparse_bases_lose_the_columns_that_they_miss(case):
    s, r, small, large = case
    rank, A, B = _rank(DenseBases("ternary", 0, s), r, small, large)
    deficiency = small - rank
    missed = int((A.abs().sum(dim=0) == 0).sum())
    assert deficiency == MEASURED[case]
    if torch.linalg.matrix_rank(B) == small:
        assert deficiency == missed
    else:
        assert deficiency >= missed
