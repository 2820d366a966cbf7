"""Equation 4 of the paper (and 3, with an A for each basis), literally: the judge of every other form."""

from jaxtyping import Float
from torch import Tensor


def reference_delta_weight(
    A: Float[Tensor, "rows m"],
    B: Float[Tensor, "M rn"],
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
    scaling: float,
    *,
    small_is_input: bool,
) -> Float[Tensor, "out in"]:
    """ΔW = g · Σ_j B_j Λ_j A Γ_j, one basis after the other, in the dtype of its arguments.

    Written in differentiable operations, so it supports whatever autograd does (double backward too).

    Args:
        A: The shared small basis (r, m), or one per basis (r·n, m), row k of the paper's A_j at k·n + j.
        B: The large bases; column k of the paper's B_j is column k·n + j.
        lambda_: Diagonals Λ_j, one row per basis; n rows more for each further update to be summed.
        gamma: Diagonals Γ_j, likewise.
        scaling: g.
        small_is_input: True where in ≤ out, so that m = in; else ΔW is the transpose of the sum.

    Returns:
        ΔW with shape (out, in) = (M, m), or (m, M) where the small side is the output.

    Example:
        >>> import torch
        >>> A, B = torch.randn(2, 3), torch.randn(5, 4)  # r = 2, m = 3, M = 5, n = ⌈3/2⌉ = 2
        >>> reference_delta_weight(A, B, torch.ones(2, 2), torch.ones(2, 3), 0.1, small_is_input=True).shape
        torch.Size([5, 3])
    """
    terms_count, r = lambda_.shape
    bases_count = B.shape[1] // r
    per_basis = B.unflatten(1, (r, bases_count))
    small = A.unflatten(0, (r, -1)).expand(r, bases_count, -1)
    terms = [
        per_basis[:, :, t % bases_count] @ (lambda_[t, :, None] * small[:, t % bases_count] * gamma[t])
        for t in range(terms_count)
    ]
    total = scaling * sum(terms[1:], start=terms[0])
    return total if small_is_input else total.T
