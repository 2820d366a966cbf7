"""The adapted linear layer y = x·(W₀ + ΔW)ᵀ + b as one step of autograd.

Each pass either *folds*, that is multiplies with W = W₀ + ΔW, built for this product and not kept, or is *factored*:
multiplies with W₀ and adds the product with ΔW, which is not formed. A plan says which (see dispatch.py).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from randlora.update.dispatch import FACTORED, Plan
from randlora.update.once import first_derivative_only
from randlora.update.operators import Form, Operator, UpdateSpec
from randlora.update.scratch import scratch_like


class _AdaptedLinear(torch.autograd.Function):
    """Saves x, λ and γ, and C where that is no larger than γ; the weight and the shared bases by reference.

    A weight that is computed from what is stored of it (`read`) is computed again in the backward pass.

    A product of two trained matrices beside ΔW, as LoRA's, is added in place, to the output and to ∂x: on its own it
    would read and write each once more. Its rows of the inner width are kept, as LoRA keeps them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        lambda_: Tensor,
        gamma: Tensor,
        down: Tensor | None,
        up: Tensor | None,
        held: Tensor | None,
        read: Callable[[], Tensor] | None,
        spec: UpdateSpec,
        plan: Plan,
        form_type: Callable[..., Form],
        *bases: Tensor,
    ) -> Tensor:
        operator = form_type(*bases).operator(spec.sizes)
        bias = None if bias is None else bias.to(x.dtype)
        coefficients = None
        if held is not None:
            output = F.linear(x, held, bias)
        else:
            coefficients = operator.coefficients(lambda_, gamma, spec.scaling, x.dtype)
            base: Any = weight if read is None else read()
            if plan.forward == FACTORED:
                output = F.linear(x, base.to(x.dtype), bias)
                _add_product(x, output, coefficients, spec, operator)
            else:
                output = F.linear(x, _fold_once(base, coefficients, spec, operator), bias)
            if not operator.keeps_coefficients:
                coefficients = None
        lowered = None
        if down is not None and up is not None:
            lowered = x @ down.T
            output.addmm_(lowered, up.T)
        ctx.save_for_backward(x, weight, lambda_, gamma, down, up, lowered, held, coefficients, *bases)
        ctx.read, ctx.spec, ctx.backward_strategy, ctx.form_type = read, spec, plan.backward, form_type
        return output

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, lambda_, gamma, down, up, lowered, held, coefficients, *bases = ctx.saved_tensors
        spec: UpdateSpec = ctx.spec
        operator = ctx.form_type(*bases).operator(spec.sizes)
        wants_x, _, wants_bias, *wants_trained, wants_down, wants_up = ctx.needs_input_grad[:7]
        projected = dx = bias_gradient = lambda_gradient = gamma_gradient = None
        if wants_x and held is not None:
            dx = dy @ held
        elif wants_x:
            if coefficients is None:
                coefficients = operator.coefficients(lambda_, gamma, spec.scaling, x.dtype)
            base: Any = weight if ctx.read is None else ctx.read()
            if ctx.backward_strategy == FACTORED:
                dx = dy @ base.to(x.dtype)
                projected = _add_transposed_product(dy, dx, coefficients, spec, operator)
            else:
                dx = dy @ _fold_once(base, coefficients, spec, operator)
        down_gradient = up_gradient = None
        if down is not None:
            dlowered = dy @ up
            if dx is not None:
                dx.addmm_(dlowered, down)
            down_gradient = dlowered.T @ x if wants_down else None
            up_gradient = dy.T @ lowered if wants_up else None
        if wants_bias:
            bias_gradient = dy.sum(dim=0)
        if any(wants_trained):
            large, small = (dy, x) if spec.small_is_input else (x, dy)
            lambda_gradient, gamma_gradient = operator.gradients(large, small, lambda_, gamma, spec.scaling, projected)
        none = (None,) * (5 + len(bases))  # held, read, spec, plan, the form's type and its tensors
        return (dx, None, bias_gradient, lambda_gradient, gamma_gradient, down_gradient, up_gradient, *none)


def _add_product(x: Tensor, output: Tensor, coefficients: Any, spec: UpdateSpec, operator: Operator) -> None:
    """Output += x·ΔWᵀ."""
    if spec.small_is_input:
        operator.expand(operator.mix(coefficients, x), onto=output)
    else:
        operator.unmix(coefficients, operator.project(x), onto=output)


def _add_transposed_product(
    dy: Tensor, dx: Tensor, coefficients: Any, spec: UpdateSpec, operator: Operator
) -> Tensor | None:
    """∂x += ∂y·ΔW; returns ∂y·B where the gradients of λ and γ can use it."""
    if not spec.small_is_input:
        operator.expand(operator.mix(coefficients, dy), onto=dx)
        return None
    projected = operator.project(dy)
    operator.unmix(coefficients, projected, onto=dx)
    return projected


def _fold_once(weight: Tensor, coefficients: Any, spec: UpdateSpec, operator: Operator) -> Tensor:
    """W₀ + ΔW in the dtype of C, for one product: the next fold may overwrite it."""
    large_by_small = weight if spec.small_is_input else weight.T
    folded = operator.fold(coefficients, large_by_small, out=scratch_like("weight", large_by_small)).to(
        coefficients.dtype
    )
    return folded if spec.small_is_input else folded.T


def adapted_linear(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"] | Callable[[], Float[Tensor, "out in"]],
    bias: Float[Tensor, " out"] | None,
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
    spec: UpdateSpec,
    form: Form,
    plan: Plan,
    held: Float[Tensor, "out in"] | None = None,
    beside: tuple[Float[Tensor, "k in"], Float[Tensor, "out k"]] | None = None,
) -> Float[Tensor, "*batch out"]:
    """X · (W₀ + ΔW)ᵀ + b; nothing of the size of C or ΔW outlives the call.

    W₀ is frozen: no gradient is computed for it.

    Args:
        x: Input, any leading dimensions, in the compute dtype.
        weight: W₀, any floating dtype and any strides; or what computes it, for each pass anew, from fewer bits.
        bias: b or None; it gets a gradient where it requires one.
        lambda_: Trained diagonals Λ, float32 (float64 where x is).
        gamma: Trained diagonals Γ, in the dtype of λ.
        spec: The adapter on this layer.
        form: What describes its bases, in the dtype of x.
        plan: Strategy of the forward and of the backward pass.
        held: W₀ + ΔW in the dtype of x where the caller has it; the plan is then not asked.
        beside: A and B of a product that is added, x·Aᵀ·Bᵀ, in the dtype of x; each gets a gradient.

    Returns:
        The layer's output, in the dtype of x.
    """
    rows = x.reshape(-1, x.shape[-1])
    down, up = beside or (None, None)
    stored, read = (weight, None) if isinstance(weight, Tensor) else (None, weight)
    trained = lambda_, gamma, down, up
    output = _AdaptedLinear.apply(rows, stored, bias, *trained, held, read, spec, plan, type(form), *form)
    return output.view(*x.shape[:-1], output.shape[-1])
