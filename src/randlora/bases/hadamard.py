"""Hadamard matrices of many orders, as a Kronecker product of two small factors.

An order P = p·2^k with p = 1 or a Paley order gives H_P = H_a ⊗ H_b with a·b = P and a ≈ b, so a product with H_P is
two small matrix products, and P is never far above the size asked for (768 = 12·64, 3584 = 28·128, 11008 ≤ 44·256).
"""

from functools import lru_cache
from math import gcd

import torch
from torch import Tensor

# Paley orders with an odd part that the powers of two do not reach: 3, 5, 7, 9, 11, 15.
_PALEY_ORDERS = (12, 20, 28, 36, 44, 60)


def hadamard_order(size: int) -> int:
    """The smallest available order P ≥ size: p·2^k with p = 1 or one of the Paley orders 12, 20, 28, 36, 44, 60."""
    candidates = []
    for start in (1, *_PALEY_ORDERS):
        order = start
        while order < size:
            order *= 2
        candidates.append(order)
    return min(candidates)


@lru_cache(maxsize=64)
def hadamard_factors(order: int) -> tuple[Tensor, Tensor]:
    """H_a and H_b with H_order = H_a ⊗ H_b, entries ±1, int8, within a factor of 4 of each other where possible.

    Every leading principal minor of both factors is nonzero, hence also of the product: any leading block of H_order
    has full rank.

    Args:
        order: A value that `hadamard_order` returns.
    """
    paley = next((p for p in _PALEY_ORDERS if order % p == 0 and _is_power_of_two(order // p)), 1)
    power = order // paley
    # Split the power of two so that both factors come out about equal; the Paley part goes to the first.
    first, second = paley, power
    while second >= 4 * first:
        first, second = first * 2, second // 2
    while paley == 1 and second > first:
        first, second = first * 2, second // 2
    with torch.device("cpu"):
        head = torch.kron(_paley(paley), _sylvester(first // paley)) if paley > 1 else _sylvester(first)
        return head, _sylvester(second)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _sylvester(order: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.int8)
    block = torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)
    while matrix.shape[0] < order:
        matrix = torch.kron(matrix, block)
    return matrix


def _paley(order: int) -> Tensor:
    """Paley's construction I where order - 1 is a prime ≡ 3 (mod 4), else II with the prime order/2 - 1 ≡ 1 (mod 4)."""
    if _is_prime(order - 1):
        return _nonzero_leading_minors(torch.eye(order, dtype=torch.int8) + _conference(order - 1, skew=True))
    conference = _conference(order // 2 - 1, skew=False)
    plus = torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)
    diagonal = torch.tensor([[1, -1], [-1, -1]], dtype=torch.int8)
    size = order // 2
    return _nonzero_leading_minors(
        torch.kron(conference, plus) + torch.kron(torch.eye(size, dtype=torch.int8), diagonal)
    )


def _conference(prime: int, *, skew: bool) -> Tensor:
    """The conference matrix of the quadratic residues modulo a prime, (prime + 1)², zero diagonal, ±1 elsewhere."""
    squares = {(i * i) % prime for i in range(1, prime)}
    residue = [0] + [1 if i in squares else -1 for i in range(1, prime)]
    matrix = torch.ones(prime + 1, prime + 1, dtype=torch.int8)
    matrix[0, 0] = 0
    index = torch.arange(prime)
    matrix[1:, 1:] = torch.tensor(residue, dtype=torch.int8)[(index[:, None] - index[None, :]) % prime]
    if skew:
        matrix[1:, 0] = -1
    return matrix


def _nonzero_leading_minors(matrix: Tensor) -> Tensor:
    """Permute the rows (Gaussian elimination's pivots) so that no leading principal minor vanishes."""
    order = list(range(matrix.shape[0]))
    work = matrix.double()
    for column in range(len(order)):
        pivot = column + int(work[column:, column].abs().argmax())
        swap = [pivot, column]
        work[[column, pivot]] = work[swap]
        order[column], order[pivot] = order[pivot], order[column]
        work[column + 1 :] -= work[column + 1 :, column : column + 1] / work[column, column] * work[column]
    return matrix[order]


def _is_prime(number: int) -> bool:
    return number > 1 and all(gcd(number, i) == 1 for i in range(2, int(number**0.5) + 1))
