import torch

from randlora.bases.spectral import Factors, decompose
from randlora.methods import SvftConfig
from randlora.methods.svft import trained_positions


def positions(pattern, d, factors, seed=0):
    found = trained_positions(SvftConfig(pattern=pattern, off_diagonals=d, seed=seed), factors)
    m = len(factors.sigma)
    return [(p // m, p % m) for p in found.tolist()]


def test_patterns():
    factors = decompose(torch.randn(9, 6, dtype=torch.float64), 6)
    everywhere = [(i, j) for i in range(6) for j in range(6)]
    assert positions("plain", 3, factors) == [(i, i) for i in range(6)]
    band = [(i, j) for i, j in everywhere if abs(i - j) <= 2]
    assert positions("banded", 2, factors) == band
    assert len(band) == 6 * 5 - 2 * 3  # m(2d + 1) - d(d + 1)
    assert positions("banded", 99, factors) == everywhere

    drawn = positions("random", 2, factors)
    assert len(set(drawn)) == len(band)
    assert drawn == positions("random", 2, factors)
    assert drawn != positions("random", 2, factors, seed=1)
    assert drawn == sorted(drawn)


def test_top_k_takes_the_best_aligned_pairs():
    square = decompose(torch.randn(6, 6, dtype=torch.float64), 6)
    alignment = {(i, j): abs(float(square.U[:, i] @ square.V[:, j])) for i in range(6) for j in range(6)}
    best = sorted(alignment, key=alignment.get, reverse=True)[: 6 * 3 - 2]
    assert positions("top_k", 1, square) == sorted(best)
    # It does not depend on the signs that a solver gives the pairs.
    signs = torch.tensor([1.0, -1, 1, 1, -1, -1], dtype=torch.float64)
    assert positions("top_k", 1, Factors(square.U * signs, square.sigma, square.V * signs)) == sorted(best)
