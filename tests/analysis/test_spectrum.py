"""Spectra against literal decompositions in float64, and their bounds against what they bound."""

import math

import pytest
import torch

from randlora.analysis.spectra import rank_of_all
from randlora.analysis.spectrum import Spectrum, alignment, spectrum_of


def _matrix(values, rows, columns):
    """A matrix with the singular values given."""
    U = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64)).Q
    return (U * torch.tensor(values, dtype=torch.float64)) @ V.T


@pytest.mark.parametrize("shape", [(7, 13), (13, 7), (1, 5), (6, 6)])
def test_exact_spectrum_is_the_literal_one(shape):
    matrix = torch.randn(*shape, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(matrix @ matrix.T).flip(0)[: min(shape)].clamp(min=0)
    found = spectrum_of(matrix)
    assert found.exact
    assert found.error == 0
    torch.testing.assert_close(found.values, eigenvalues.sqrt(), atol=1e-7, rtol=1e-9)
    assert found.stable_rank == pytest.approx(float(eigenvalues.sum() / eigenvalues[0]))
    shares = eigenvalues.sqrt() / eigenvalues.sqrt().sum()
    assert found.effective_rank == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares.tolist())))


def test_ranks_hold_the_energy_they_say():
    found = spectrum_of(_matrix([4.0, 2.0, 2.0, 1.0], 9, 5))  # energies 16, 4, 4, 1 of 25
    assert [found.rank_for(share) for share in (0.64, 0.65, 0.8, 0.96, 0.97)] == [
        (1, 1),
        (2, 2),
        (2, 2),
        (3, 3),
        (4, 4),
    ]
    assert found.energy(2) == pytest.approx(20)
    assert found.stable_rank == pytest.approx(25 / 16)


def test_equal_values_have_full_effective_rank():
    assert spectrum_of(3 * torch.eye(6, dtype=torch.float64)).effective_rank == pytest.approx(6)


def test_zeros_have_no_rank():
    found = spectrum_of(torch.zeros(4, 3))
    assert (found.stable_rank, found.effective_rank, found.rank_for(0.9), found.error) == (0, 0, (0, 0), 0)
    assert alignment(torch.zeros(4, 3), torch.randn(4, 3), 2).left == 0


@pytest.mark.parametrize("shape", [(70, 90), (90, 70)])
@pytest.mark.parametrize("decay", [0.0, 0.05, 0.5])
def test_a_sketch_bounds_what_it_leaves_out(shape, decay):
    matrix = _matrix([math.exp(-decay * place) for place in range(70)], *shape)
    exact, sketch = spectrum_of(matrix), spectrum_of(matrix, exact_side=10, sketch=1)
    assert exact.exact
    assert not sketch.exact
    known = len(sketch.values)
    assert (sketch.values <= exact.values[:known] * (1 + 1e-9)).all()
    allowed = (sketch.values**2 + (1.05 * sketch.residual) ** 2).sqrt()  # the norm is an estimate from below
    assert (exact.values[:known] <= allowed).all()
    assert sketch.total == pytest.approx(exact.total)
    assert sketch.missed == pytest.approx(exact.total - float((sketch.values**2).sum()), abs=1e-9)
    for share in (0.5, 0.9, 0.99):
        low, high = sketch.rank_for(share)
        assert low <= exact.rank_for(share)[0] <= high
        assert sketch.energy(high) <= exact.energy(high) * (1 + 1e-9)
    assert sketch.effective_rank >= exact.effective_rank * 0.98


def test_a_sketch_of_low_rank_is_right():
    sketch = spectrum_of(_matrix([3.0, 2.0, 1.0], 80, 100), exact_side=10, sketch=8)
    torch.testing.assert_close(sketch.values[:3], torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    assert sketch.error < 1e-6
    assert sketch.rank_for(0.99) == (3, 3)


def test_alignment_is_the_share_in_the_leading_directions():
    weight = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0], dtype=torch.float64))[:, :3]  # (4, 3)
    delta = torch.tensor([[1.0, 0.0, 2.0], [0, 0, 0], [0, 0, 0], [2.0, 0, 0]], dtype=torch.float64)
    found = alignment(delta, weight, 2)
    assert (found.left, found.right, found.both) == pytest.approx((5 / 9, 5 / 9, 1 / 9))
    assert alignment(delta, weight, 99).directions == 3
    assert alignment(delta, weight, 99).right == pytest.approx(1)


def test_rank_of_all_counts_the_layers_together():
    def of(*values):
        found = torch.tensor(values, dtype=torch.float64)
        return Spectrum(found, float((found**2).sum()), 0.0, 0.0, len(values))

    assert rank_of_all([of(3.0, 0.0), of(1.0, 1.0, 1.0)], 0.8) == 1  # 10 of 12
    assert rank_of_all([of(3.0, 0.0), of(1.0, 1.0, 1.0)], 0.9) == 2  # 11 of 12
    assert rank_of_all([of(0.0, 0.0)], 0.9) == 0
