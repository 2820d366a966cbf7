import pytest
import torch

from randlora.bases.hadamard import hadamard_factors, hadamard_order

# Sides of layers in BERT, MiniLM, ViT, CLIP, GPT-2, Llama, Qwen and Mistral models.
REAL_SIZES = [
    384,
    512,
    768,
    1024,
    1152,
    1280,
    1536,
    2048,
    3072,
    3584,
    4096,
    4864,
    5120,
    8192,
    11008,
    14336,
    18944,
    28672,
]
ORDERS = sorted({hadamard_order(size) for size in range(1, 400)})


def _product(order):
    left, right = hadamard_factors(order)
    return torch.kron(left, right).double()


def test_every_order_is_a_hadamard_matrix():
    for order in ORDERS:
        matrix = _product(order)
        assert matrix.shape == (order, order)
        assert matrix.abs().eq(1).all()
        assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))


@pytest.mark.parametrize("size", REAL_SIZES)
def test_real_sizes_have_exact_factors_of_about_equal_size(size):
    order = hadamard_order(size)
    assert order - size <= size / 8
    left, right = (factor.double() for factor in hadamard_factors(order))
    assert left.shape[0] * right.shape[0] == order
    assert max(left.shape[0], right.shape[0]) <= 4 * min(left.shape[0], right.shape[0])
    for factor in (left, right):
        assert torch.equal(factor @ factor.T, factor.shape[0] * torch.eye(factor.shape[0], dtype=torch.float64))


@pytest.mark.parametrize("sizes", [range(1, 5000), range(5000, 200_000, 997)])
def test_padding_is_small(sizes):
    for size in sizes:
        order = hadamard_order(size)
        assert order >= size
        assert 3 * order <= 4 * size or size == 5  # 5 -> 8 is the one exception
        assert hadamard_order(order) == order


def test_no_leading_principal_minor_vanishes():
    # A leading block of the product is nonsingular whenever those of both factors are: with LU = L_a U_a ⊗ L_b U_b no
    # pivot is zero. So it is enough that elimination of a factor without pivoting meets no zero.
    for factor in (factor for order in ORDERS for factor in hadamard_factors(order)):
        work = factor.double()
        for column in range(work.shape[0]):
            assert abs(work[column, column]) > 1e-6
            work[column + 1 :] -= work[column + 1 :, column : column + 1] / work[column, column] * work[column]


def test_leading_blocks_of_the_product_have_full_rank():
    for order in (order for order in ORDERS if order <= 48):
        matrix = _product(order)
        for size in range(1, order + 1):
            assert torch.linalg.svdvals(matrix[:size, :size])[-1] > 1e-6


def test_a_known_order_is_not_padded():
    assert [hadamard_order(size) for size in (1, 2, 3, 12, 20, 28, 36, 44, 60, 768, 3584, 14336)] == [
        *(1, 2, 4, 12, 20, 28, 36, 44, 60, 768, 3584, 14336)
    ]
