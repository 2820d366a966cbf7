"""CKA against a literal computation in float64, and on independent noise."""

import pytest
import torch

from randlora.analysis.features import example_features, find_blocks
from randlora.analysis.hsic import gram, minibatch_cka, unbiased_hsic
from randlora.errors import LayerError


def _literal_hsic(X, Y):
    """Song et al.'s mean over quadruples of different examples, of which the formula is the closed form."""
    n = len(X)
    k, m = X @ X.T, Y @ Y.T
    total = 0.0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
    return total / (n * (n - 1) * (n - 2) * (n - 3))


@pytest.mark.parametrize("n", [4, 5, 7])
def test_hsic_is_the_mean_over_quadruples(n):
    X, Y = torch.randn(n, 3, dtype=torch.float64) + 5, torch.randn(n, 2, dtype=torch.float64) - 3
    assert unbiased_hsic(gram(X), gram(Y)) == pytest.approx(_literal_hsic(X, Y), rel=1e-9)
    assert unbiased_hsic(gram(X), gram(X)) == pytest.approx(_literal_hsic(X, X), rel=1e-9)


def test_batches_are_summed_before_the_division():
    X, Y = torch.randn(13, 3, dtype=torch.float64), torch.randn(13, 4, dtype=torch.float64)
    Y[:, 0] += X[:, 1]
    parts = [slice(0, 5), slice(5, 9), slice(9, 13)]
    sums = [sum(_literal_hsic(a[part], b[part]) for part in parts) for a, b in ((X, Y), (X, X), (Y, Y))]
    if sums[1] <= 0 or sums[2] <= 0:
        pytest.fail("the draw is too small for this test")
    value, error = minibatch_cka([gram(X[part]) for part in parts], [gram(Y[part]) for part in parts])
    assert value == pytest.approx(sums[0] / (sums[1] * sums[2]) ** 0.5, rel=1e-9)
    assert error > 0


def test_rotations_scales_and_shifts_change_nothing():
    X = torch.randn(40, 6, dtype=torch.float64)
    turned = 3 * X @ torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q + 100
    value, _ = minibatch_cka([gram(X[:20]), gram(X[20:])], [gram(turned[:20]), gram(turned[20:])])
    assert value == pytest.approx(1, abs=1e-9)


def test_independent_noise_has_none_within_its_spread():
    values, errors = [], []
    for _ in range(40):
        batches = [(gram(torch.randn(16, 256)), gram(torch.randn(16, 256))) for _ in range(8)]
        value, error = minibatch_cka(*map(list, zip(*batches, strict=True)))
        values.append(value)
        errors.append(error)
    found, expected = torch.tensor(values), torch.tensor(errors)
    assert abs(found.mean()) < 3 * found.std() / 40**0.5  # a biased estimator gives some 0.9 here
    assert found.std() < 0.2
    assert 0.5 < expected.mean() / found.std() < 2  # the jackknife tells the spread


def test_features_that_do_not_vary_have_no_cka():
    assert minibatch_cka([gram(torch.ones(6, 3))], [gram(torch.randn(6, 3))]) == (None, None)


def test_padding_is_left_out_of_the_mean():
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert example_features((states, None), [torch.ones(9, 3), mask]).tolist() == [[2.0], [4.0]]
    assert example_features(states, []).tolist() == [[pytest.approx(104 / 3)], [4.0]]
    assert example_features(torch.ones(2, 3, 4, 4), []).shape == (2, 3)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(LayerError, match="attention"):
        find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2)))
