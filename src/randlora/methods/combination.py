"""A matrix as a linear combination of random ones, which are neither saved for backward nor in any checkpoint."""

from math import prod, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.bases.random_vectors import RandomVectors
from randlora.update import in_transform


class _Combination(torch.autograd.Function):
    """c (…, k) -> Σ c_i P_i (…, size); ∂c_i = ⟨∂y, P_i⟩ with the P_i drawn or read again."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, vectors: RandomVectors, size: int) -> Tensor:
        ctx.vectors, ctx.count = vectors, coefficients.shape[-1]
        total = coefficients.new_zeros(*coefficients.shape[:-1], size)
        for rows, slab in vectors.slabs(ctx.count, size, coefficients.device):
            total += coefficients[..., rows] @ slab.to(coefficients.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        slabs = ctx.vectors.slabs(ctx.count, gradient.shape[-1], gradient.device)
        return torch.cat([gradient @ slab.to(gradient.dtype).T for _, slab in slabs], dim=-1), None, None


def combine(
    coefficients: Float[Tensor, "*stack k"], vectors: RandomVectors, shape: tuple[int, int]
) -> Float[Tensor, "*stack rows columns"]:
    """(1/√k) Σ c_i P_i, with the P_i read as matrices; entries of the P_i are uniform in (-1, 1).

    The factor 1/√k makes a step of all coefficients equally large for every k, as in NOLA's code.

    Args:
        coefficients: c, of one matrix or of each in a stack; the result is in its dtype.
        vectors: The P_i.
        shape: Of each matrix.
    """
    if in_transform():
        slabs = vectors.slabs(coefficients.shape[-1], prod(shape), coefficients.device)
        parts = [coefficients[..., rows] @ slab.to(coefficients.dtype) for rows, slab in slabs]
        combined = torch.stack(parts).sum(dim=0)
    else:
        combined = _Combination.apply(coefficients, vectors, prod(shape))
    return combined.unflatten(-1, shape) / sqrt(coefficients.shape[-1])
