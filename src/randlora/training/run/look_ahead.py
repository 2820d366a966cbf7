"""The gradient of selection variables on held-out data, through one step of the weights, without second derivatives.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, eq. 7 and 8, which AutoLoRA takes over.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Gradients = Callable[[], tuple[list[Tensor], list[Tensor]]]
"""Gradients of a loss at the weights and selection variables as they are: of the weights, of the variables."""

_DISTANCE = 0.01
"""Norm of the displacement of all weights together in the finite difference, DARTS's."""


def look_ahead_gradient(
    weights: Sequence[Tensor], step: Sequence[Tensor], rate: float, training: Gradients, validation: Gradients
) -> list[Tensor]:
    """∇_a L_val(W - η·∇_W L_train(W, a), a), to first order of the finite difference.

    By the chain rule it is ∇_a L_val(W', a) - η·∇²_{a,W} L_train(W, a)·v at W' = W - η·∇_W L_train with
    v = ∇_W' L_val(W', a). The product is a derivative of ∇_a L_train in the direction v:
    (∇_a L_train(W + ε·v, a) - ∇_a L_train(W - ε·v, a)) / 2ε with ε = 0.01/‖v‖.

    Args:
        weights: W; the same bits afterwards.
        step: ∇_W L_train(W, a).
        rate: η.
        training: Of L_train, called twice.
        validation: Of L_val, called once.

    Returns:
        The gradient, of each tensor of selection variables.
    """
    start = [weight.detach().clone() for weight in weights]

    def move(direction: Sequence[Tensor], length: float) -> None:
        with torch.no_grad():
            for weight, origin, part in zip(weights, start, direction, strict=True):
                weight.copy_(origin + length * part)

    move(step, -rate)
    along, direct = validation()
    norm = float(torch.stack([part.norm() for part in along]).norm())
    if norm == 0:
        move(step, 0.0)
        return direct
    epsilon = _DISTANCE / norm
    move(along, epsilon)
    _, above = training()
    move(along, -epsilon)
    _, below = training()
    move(along, 0.0)
    return [d - rate * (a - b) / (2 * epsilon) for d, a, b in zip(direct, above, below, strict=True)]
