import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randlora.bases import StructuredBases
from randlora.bases.structured import StructuredTensors
from randlora.update import make_operator

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
    return StructuredTensors(*StructuredBases(seed).tensors(r, small, large, CPU, torch.float32))


def _pair(r, small, large, seed=0):
    return make_operator("structured", _tensors(r, small, large, seed)).pair()


def test_golden_draws():
    digest = hashlib.sha256()
    for tensor in _tensors(5, 13, 29, seed=7):
        digest.update(tensor.contiguous().numpy().tobytes())
    found = (StructuredBases(0).fingerprint(), StructuredBases(12345).fingerprint(), digest.hexdigest()[:16])
    assert found == ("3bb534926cf8efef", "dafb06d6e48c674d", "0ad84aaa1ad55f96")


@given(shapes, st.integers(0, 2**63 - 1))
def test_slot_and_source_are_inverse(shape, seed):
    r, small, _ = shape
    bases_count = -(-small // r)
    tensors = _tensors(*shape, seed=seed)
    assert tensors.slot.unique().numel() == small
    assert 0 <= int(tensors.slot.min()) <= int(tensors.slot.max()) < r * bases_count
    assert torch.equal(tensors.source.flatten()[tensors.slot], torch.arange(small))
    # Every other slot is padding: it has no sign, and repeats a column that exists.
    assert int(tensors.sign.count_nonzero()) == small
    assert tensors.sign.flatten()[tensors.slot].abs().eq(1).all()
    assert int(tensors.source.max()) < small


@given(shapes, st.integers(0, 2**63 - 1))
def test_the_rows_of_a_get_equal_shares_of_the_columns(shape, seed):
    small = shape[1]
    shares = _tensors(*shape, seed=seed).sign.abs().sum(dim=1)
    assert shares.sum() == small
    assert shares.max() - shares.min() <= 1


@given(shapes)
def test_a_has_one_sign_per_column_and_b_is_a_hadamard_block(shape):
    r, small, large = shape
    A, B = _pair(*shape)
    assert A.shape == (r, small)
    assert B.shape == (large, -(-small // r) * r)
    assert torch.equal(A.abs().sum(dim=0), torch.ones(small))
    assert B.abs().eq(1).all()


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_b_has_full_column_rank_where_it_is_tall(shape):
    _, B = _pair(*shape)
    assert torch.linalg.matrix_rank(B.double()) == min(B.shape)


@pytest.mark.parametrize("shape", [(4, 64, 64), (8, 96, 96), (16, 768, 768)])
def test_b_is_orthogonal_where_nothing_is_cut_off(shape):
    _, B = _pair(*shape)
    assert torch.equal(B.T @ B, B.shape[0] * torch.eye(B.shape[1]))


def test_signs_and_permutation_are_random():
    A, B = _pair(8, 512, 512)
    order = _tensors(8, 512, 512).slot
    # 5 standard deviations of a sum of 512 fair signs: 5 · √512.
    assert abs(A.sum()) < 5 * 512**0.5
    assert abs(_tensors(8, 512, 512).row_sign.sum()) < 5 * 512**0.5
    # A random permutation has one fixed point on average; more than 8 is a chance below 1e-5.
    assert (order == torch.arange(512)).sum() <= 8
    assert not torch.equal(B[:, 0].abs().cumsum(0), B[:, 0].cumsum(0))


def test_seeds_give_different_bases():
    draws = [_tensors(4, 32, 32, seed=seed) for seed in (0, 1, 2**32)]
    assert len({(d.slot.numpy().tobytes(), d.row_sign.numpy().tobytes()) for d in draws}) == 3


def test_unit_variance_after_scale():
    A, B = _pair(8, 96, 100)
    assert (A * StructuredBases(0).scale(8)).square().mean() == pytest.approx(1)
    assert B.square().mean() == 1


def test_a_layer_needs_vectors_and_small_factors_only():
    tensors = _tensors(16, 4096, 11008)
    assert sum(t.numel() for t in tensors) < 8 * (4096 + 11008)
    assert StructuredBases(0).stored_bytes() == 0


def test_the_description_of_a_shape_is_drawn_once():
    bases = StructuredBases(0)
    first, second = (bases.tensors(4, 12, 20, CPU, torch.float32) for _ in range(2))
    assert [t.data_ptr() for t in first] == [t.data_ptr() for t in second]
