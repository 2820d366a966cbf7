"""ΔW folded into the weight: W = W₀ + ΔW, y = x·Wᵀ + b; W is built again in backward, never kept."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from randlora.update.once import first_derivative_only
from randlora.update.operators import UpdateSpec, make_operator
from randlora.update.scratch import scratch


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
        spec: UpdateSpec,
        *bases: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, lambda_, gamma, *bases)
        ctx.spec = spec
        folded = fold(weight, lambda_, gamma, spec, bases, x.dtype)
        return F.linear(x, folded, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, lambda_, gamma, *bases = ctx.saved_tensors
        spec: UpdateSpec = ctx.spec
        dx = bias_gradient = lambda_gradient = gamma_gradient = None
        if ctx.needs_input_grad[0]:
            dx = dy @ fold(weight, lambda_, gamma, spec, bases, x.dtype)
        if ctx.needs_input_grad[2]:
            bias_gradient = dy.sum(dim=0)
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            large, small = (dy, x) if spec.small_is_input else (x, dy)
            operator = make_operator(spec, bases)
            lambda_gradient, gamma_gradient = operator.gradients(large, small, lambda_, gamma, spec.scaling)
        return (dx, None, bias_gradient, lambda_gradient, gamma_gradient, None, *(None for _ in bases))


def fold(
    weight: Float[Tensor, "out in"],
    lambda_: Float[Tensor, "n r"],
    gamma: Float[Tensor, "n m"],
    spec: UpdateSpec,
    bases: Sequence[Tensor],
    dtype: torch.dtype,
) -> Float[Tensor, "out in"]:
    """W₀ + ΔW in the compute dtype, for one product: the next fold may overwrite it.

    A weight of a wider dtype keeps its low bits until the sum is rounded.
    """
    operator = make_operator(spec, bases)
    coefficients = operator.coefficients(lambda_, gamma, spec.scaling, dtype)
    large_by_small = weight if spec.small_is_input else weight.T
    folded = operator.fold(coefficients, large_by_small, out=scratch(large_by_small)).to(dtype)
    return folded if spec.small_is_input else folded.T


def folded_linear(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, " out"] | None,
    lambda_: Float[Tensor, "n r"],
    gamma: Float[Tensor, "n m"],
    spec: UpdateSpec,
    bases: tuple[Tensor, ...],
) -> Float[Tensor, "*batch out"]:
    """X · (W₀ + ΔW)ᵀ + b; nothing of the size of C or ΔW outlives the call.

    W₀ is frozen: no gradient is computed for it.

    Args:
        x: Input, any leading dimensions, in the compute dtype.
        weight: W₀, any floating dtype and any strides.
        bias: b or None; it gets a gradient where it requires one.
        lambda_: Trained diagonals Λ, float32 (float64 where x is).
        gamma: Trained diagonals Γ, in the dtype of λ.
        spec: The adapter on this layer.
        bases: The tensors that describe its bases, in the dtype of x.

    Returns:
        The layer's output, in the dtype of x.
    """
    rows = x.reshape(-1, x.shape[-1])
    output = _FoldedLinear.apply(rows, weight, bias, lambda_, gamma, spec, *bases)
    return output.view(*x.shape[:-1], output.shape[-1])
