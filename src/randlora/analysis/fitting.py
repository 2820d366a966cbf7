"""How near a method comes to a given ΔW: by the singular values for LoRA, by L-BFGS for the others."""

from typing import Any

import peft
import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


def targets(rows: int, columns: int, seed: int) -> dict[str, Float[Tensor, "rows columns"]]:
    """Matrices to come near to, of norm 1: random, of rank 4, and with singular values 1/i, as found after training."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(random, full_matrices=False)
    places = torch.arange(1, min(rows, columns) + 1, dtype=torch.float64)
    found = {"random": random, "rank 4": U[:, :4] @ Vh[:4], "falling as 1/i": (U / places) @ Vh}
    return {name: matrix / matrix.norm() for name, matrix in found.items()}


def lora_error(target: Float[Tensor, "rows columns"], rank: int) -> float:
    """The smallest error of a LoRA, as a share of the target's norm."""
    squares = torch.linalg.svdvals(target).square()
    return float((squares[rank:].sum() / squares.sum()).sqrt())


def fitted_error(target: Float[Tensor, "rows columns"], config: peft.PeftConfig, steps: int) -> tuple[float, int]:
    """The error that a method comes to by L-BFGS, as a share of the target's norm, and its trained numbers.

    Args:
        target: In float64.
        config: Of the method, for a module called "0".
        steps: Iterations at most.
    """
    delta, numbers = fit(target, config, steps)
    return float((delta - target).norm() / target.norm()), numbers


def fit(
    target: Float[Tensor, "rows columns"], config: peft.PeftConfig, steps: int
) -> tuple[Float[Tensor, "rows columns"], int]:
    """The ΔW of a method that L-BFGS comes to, and how many trained numbers it has.

    Args:
        target: In float64.
        config: Of the method, for a module called "0".
        steps: Iterations at most.
    """
    rows, columns = target.shape
    net = nn.Sequential(nn.Linear(columns, rows, bias=False).double())
    torch.manual_seed(0)  # KRAdapter's start is drawn
    model = peft.get_peft_model(net, config)
    layer: Any = next(module for module in model.modules() if isinstance(module, BaseTunerLayer))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.LBFGS(
        trained,
        max_iter=steps,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        return (layer.get_delta_weight("default") - target).square().sum() / target.square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return layer.get_delta_weight("default").detach(), sum(parameter.numel() for parameter in trained)
