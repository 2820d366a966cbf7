"""ΔW applied without forming it: y = (x·Cᵀ)·Bᵀ, or (x·B)·C where the small side is the output."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.update.once import first_derivative_only
from randlora.update.operators import Form, UpdateSpec


class _FactoredUpdate(torch.autograd.Function):
    """Saves x, λ and γ (and the shared bases by reference); C and the hidden rows are computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        lambda_: Tensor,
        gamma: Tensor,
        spec: UpdateSpec,
        form_type: Callable[..., Form],
        *bases: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, lambda_, gamma, *bases)
        ctx.spec, ctx.form_type = spec, form_type
        operator = form_type(*bases).operator(spec.sizes)
        coefficients = operator.coefficients(lambda_, gamma, spec.scaling, x.dtype)
        if spec.small_is_input:
            return operator.expand(operator.mix(coefficients, x))
        return operator.unmix(coefficients, operator.project(x))

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, lambda_, gamma, *bases = ctx.saved_tensors
        spec: UpdateSpec = ctx.spec
        operator = ctx.form_type(*bases).operator(spec.sizes)
        large, small = (dy, x) if spec.small_is_input else (x, dy)
        projected = operator.project(large)
        dx = lambda_gradient = gamma_gradient = None
        if ctx.needs_input_grad[0]:
            coefficients = operator.coefficients(lambda_, gamma, spec.scaling, x.dtype)
            if spec.small_is_input:
                dx = operator.unmix(coefficients, projected)
            else:
                dx = operator.expand(operator.mix(coefficients, dy))
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            lambda_gradient, gamma_gradient = operator.gradients(large, small, lambda_, gamma, spec.scaling, projected)
        return (dx, lambda_gradient, gamma_gradient, None, None, *(None for _ in bases))


def factored_update(
    x: Float[Tensor, "*batch in"],
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
    spec: UpdateSpec,
    form: Form,
) -> Float[Tensor, "*batch out"]:
    """X · ΔWᵀ without forming ΔW; nothing of the size of C or ΔW outlives the call.

    Args:
        x: Input, any leading dimensions, in the compute dtype.
        lambda_: Trained diagonals Λ, float32 (float64 where x is).
        gamma: Trained diagonals Γ, in the dtype of λ.
        spec: The adapter on this layer.
        form: What describes its bases, in the dtype of x.

    Returns:
        The update of the layer's output, in the dtype of x.
    """
    rows = x.reshape(-1, x.shape[-1])
    update = _FactoredUpdate.apply(rows, lambda_, gamma, spec, type(form), *form)
    return update.view(*x.shape[:-1], update.shape[-1])
