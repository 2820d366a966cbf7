import hashlib
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randlora.bases import StructuredBases
from sizes import sizes

CPU = torch.device("cpu")
shapes = st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(0, 50)).map(lambda s: (s[0], s[1], s[1] + s[2]))
ODD_SHAPES = [
    (1, 1, 1),
    (4, 1, 9),
    (5, 3, 3),
    (3, 7, 11),
    (4, 6, 6),
    (16, 13, 31),
    (8, 64, 64),
    (7, 31, 97),
    (100, 10, 20),
]


def _tensors(r, small, large, seed=0):
    return StructuredBases(seed).form(sizes(r, small, large), CPU, torch.float32)


def _pair(r, small, large, seed=0):
    return _tensors(r, small, large, seed).operator(sizes(r, small, large)).pair()


def test_golden_draws():
    digest = hashlib.sha256()
    for shape in [(5, 13, 29), (3, 400, 500)]:
        for tensor in _tensors(*shape, seed=7):
            digest.update(tensor.contiguous().numpy().tobytes())
    found = (StructuredBases(0).fingerprint(), StructuredBases(12345).fingerprint(), digest.hexdigest()[:16])
    assert found == ("e1f45b0b01df0b4c", "f5f5203925d44040", "677cfb13b95af007")


@given(shapes)
def test_the_rows_of_a_add_up_contiguous_blocks_of_equal_length(shape):
    A, _ = _pair(*shape)
    assert A.shape == shape[:2]
    # One 1 per column, in the row of the column before it or in the next row.
    assert torch.equal(A.sum(dim=0), torch.ones(shape[1]))
    assert torch.equal(A.count_nonzero(dim=0), torch.ones(shape[1], dtype=torch.int64))
    assert set(A.argmax(dim=0).diff().tolist()) <= {0, 1}
    shares = A.sum(dim=1)
    assert shares.max() - shares.min() <= 1


@given(shapes, st.integers(0, 2**63 - 1))
def test_b_is_the_product_of_two_matrices_of_signs(shape, seed):
    r, small, large = shape
    n = -(-small // r)
    _, B = _pair(*shape, seed=seed)
    assert B.shape == (large, n * r)
    assert B.abs().eq(1).all()
    # Every block of n rows and n columns is R, up to its sign; of fewer rows its beginning.
    for k in range(r):
        for part in _row_blocks(large, r, n):
            block = B[part, k * n : (k + 1) * n]
            first = B[: block.shape[0], :n]
            assert torch.equal(block, first) or torch.equal(block, -first)


def _row_blocks(large, r, n):
    """The rows in blocks of n; of fewer than r·n rows the last blocks lack a row each, else the last block is cut."""
    short = max(0, r * n - large)
    heights = [n] * (r - short) + [n - 1] * short if short else [n] * (large // n) + [large % n]
    starts = [0, *torch.tensor(heights).cumsum(0).tolist()]
    assert starts[-1] == large
    return [slice(start, stop) for start, stop in pairwise(starts)]


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_b_has_full_column_rank_where_it_is_tall(shape):
    _, B = _pair(*shape)
    assert torch.linalg.matrix_rank(B.double()) == min(B.shape)


@pytest.mark.parametrize("shape", [(4, 64, 64), (8, 96, 96), (16, 768, 768)])
def test_b_is_orthogonal_where_nothing_is_cut_off(shape):
    _, B = _pair(*shape)
    assert torch.equal(B.T @ B, B.shape[0] * torch.eye(B.shape[1]))


def test_row_signs_are_random():
    _, B = _pair(16, 1024, 4096)
    # 5 standard deviations of a sum of fair signs: the first column is the signs of L times those of R.
    assert abs(B[:64, 0].sum()) < 5 * 64**0.5
    assert abs(B[::64, 0].sum()) < 5 * 64**0.5
    assert not torch.equal(B[:64, 0], torch.ones(64))
    assert not torch.equal(B[::64, 0], torch.ones(64))


def test_seeds_give_different_bases():
    draws = [_pair(4, 32, 32, seed=seed)[1] for seed in (0, 1, 2**32)]
    assert len({B.numpy().tobytes() for B in draws}) == 3


def test_unit_variance_after_scale():
    A, B = _pair(8, 96, 100)
    assert (A * StructuredBases(0).scale(8)).square().mean() == pytest.approx(1)
    assert B.square().mean() == 1


def test_a_layer_needs_small_factors_only():
    for r in (1, 4, 16, 64):
        assert sum(t.numel() for t in _tensors(r, 4096, 11008)) < 2 * (4096 + 11008)
    assert StructuredBases(0).stored_bytes() == 0


def test_the_description_of_a_shape_is_drawn_once():
    bases = StructuredBases(0)
    first, second = (bases.form(sizes(4, 12, 20), CPU, torch.float32) for _ in range(2))
    assert [t.data_ptr() for t in first] == [t.data_ptr() for t in second]
