"""Where custom autograd functions end: second derivatives, which they refuse, and torch.func, which does without."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from randlora.errors import UpdateError

Backward = Callable[..., tuple[Tensor | None, ...]]


def in_transform() -> bool:
    """Whether a transform of torch.func, or differentiation in forward mode, is running.

    A custom autograd function would need rules of its own for them.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class _FirstDerivative(torch.autograd.Function):
    """Hands the first `count` tensors on, tied to the others, from which they were computed."""

    @staticmethod
    def forward(_ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        raise UpdateError(
            "second derivative of a RandLoRA update",
            expected="first derivatives only",
            hint="strategy='reference' supports double backward",
        )


def first_derivative_only(backward: Backward) -> Backward:
    """Let a `backward` run once, for one gradient; differentiating its result, or a batch, raises an UpdateError.

    torch's `once_differentiable` ties the result to nothing, so `torch.autograd.grad(..., inputs)` leaves the second
    derivative out without a word where another path leads to the inputs.

    Args:
        backward: The static method of an autograd function.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        is_compiling = torch.compiler.is_compiling()
        if not is_compiling and any(map(is_legacy_batchedtensor, gradients)):
            raise UpdateError(
                "batched gradients of a RandLoRA update",
                expected="one gradient at a time",
                hint="strategy='reference' and torch.func support is_grads_batched and vectorize",
            )
        with torch.no_grad():
            results = backward(ctx, *gradients)
        if is_compiling or not torch.is_grad_enabled():
            return results
        sources = [t for t in (*gradients, *ctx.saved_tensors) if t is not None and t.requires_grad]
        return _FirstDerivative.apply(len(results), *results, *sources)

    return checked
