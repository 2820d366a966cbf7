"""ΔW folded into the weight: W = W₀ + ΔW, y = x·Wᵀ + b; W is built again in backward, never kept."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from randlora.update.once import first_derivative_only
from randlora.update.operators import delta_weight, make_operator


class _FoldedLinear(torch.autograd.Function):
    """Saves x, λ and γ; the weight and the shared bases are saved by reference."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lambda_: Tensor,
        gamma: Tensor,
        scaling: float,
        small_is_input: bool,
        kind: str,
        *bases: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, lambda_, gamma, *bases)
        ctx.scaling, ctx.small_is_input, ctx.kind = scaling, small_is_input, kind
        folded = _fold(weight, lambda_, gamma, scaling, small_is_input, kind, bases, x.dtype)
        return F.linear(x, folded, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, lambda_, gamma, *bases = ctx.saved_tensors
        dx = bias_gradient = lambda_gradient = gamma_gradient = None
        if ctx.needs_input_grad[0]:
            dx = dy @ _fold(weight, lambda_, gamma, ctx.scaling, ctx.small_is_input, ctx.kind, bases, x.dtype)
        if ctx.needs_input_grad[2]:
            bias_gradient = dy.sum(dim=0)
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            large, small = (dy, x) if ctx.small_is_input else (x, dy)
            operator = make_operator(ctx.kind, bases)
            lambda_gradient, gamma_gradient = operator.gradients(large, small, lambda_, gamma, ctx.scaling)
        return (
            dx,
            None,
            bias_gradient,
            lambda_gradient,
            gamma_gradient,
            None,
            None,
            None,
            *(None for _ in bases),
        )


def _fold(
    weight: Tensor,
    lambda_: Tensor,
    gamma: Tensor,
    scaling: float,
    small_is_input: bool,
    kind: str,
    bases: Sequence[Tensor],
    dtype: torch.dtype,
) -> Tensor:
    update = delta_weight(make_operator(kind, bases), lambda_, gamma, scaling, dtype, small_is_input=small_is_input)
    # The sum is rounded once, to the compute dtype: a weight stored in float32 keeps its low bits until then.
    return (weight + update).to(dtype)


def folded_linear(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, " out"] | None,
    lambda_: Float[Tensor, "n r"],
    gamma: Float[Tensor, "n m"],
    scaling: float,
    kind: str,
    bases: tuple[Tensor, ...],
    *,
    small_is_input: bool,
) -> Float[Tensor, "*batch out"]:
    """X · (W₀ + ΔW)ᵀ + b; nothing of the size of C or ΔW outlives the call.

    W₀ is frozen: no gradient is computed for it.

    Args:
        x: Input, any leading dimensions, in the compute dtype.
        weight: W₀, any floating dtype and any strides.
        bias: b or None; it gets a gradient where it requires one.
        lambda_: Trained diagonals Λ, float32 (float64 where x is).
        gamma: Trained diagonals Γ, in the dtype of λ.
        scaling: g of eq. 4.
        kind: Which operator the bases are for, `dense` or `structured`.
        bases: Its tensors, in the dtype of x.
        small_is_input: True where in ≤ out.

    Returns:
        The layer's output, in the dtype of x.
    """
    rows = x.reshape(-1, x.shape[-1])
    output = _FoldedLinear.apply(rows, weight, bias, lambda_, gamma, scaling, small_is_input, kind, *bases)
    return output.view(*x.shape[:-1], output.shape[-1])
