"""A matrix as a linear combination of random ones, which are neither saved for backward nor in any checkpoint."""

from math import prod, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.bases.random_vectors import RandomVectors
from randlora.update import in_transform


class _Combination(torch.autograd.Function):
    """c (k) -> Σ c_i P_i (size); ∂c_i = ⟨∂y, P_i⟩ with the P_i drawn or read again."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, vectors: RandomVectors, size: int) -> Tensor:
        ctx.vectors, ctx.count = vectors, len(coefficients)
        total = coefficients.new_zeros(size)
        for rows, slab in vectors.slabs(len(coefficients), size, coefficients.device):
            total += coefficients[rows] @ slab.to(coefficients.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        slabs = ctx.vectors.slabs(ctx.count, len(gradient), gradient.device)
        return torch.cat([slab.to(gradient.dtype) @ gradient for _, slab in slabs]), None, None


def combine(coefficients: Float[Tensor, " k"], vectors: RandomVectors, shape: tuple[int, int]) -> Tensor:
    """(1/√k) Σ c_i P_i, with the P_i read as matrices; entries of the P_i are uniform in (-1, 1).

    The factor 1/√k makes a step of all coefficients equally large for every k, as in NOLA's code.

    Args:
        coefficients: c; the result is in its dtype.
        vectors: The P_i.
        shape: Of the result.
    """
    if in_transform():
        slabs = vectors.slabs(len(coefficients), prod(shape), coefficients.device)
        combined = torch.stack([coefficients[rows] @ slab.to(coefficients.dtype) for rows, slab in slabs]).sum(dim=0)
    else:
        combined = _Combination.apply(coefficients, vectors, prod(shape))
    return combined.view(shape) / sqrt(len(coefficients))
