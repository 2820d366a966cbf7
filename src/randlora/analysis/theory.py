"""`randlora analyze theory`: how near each method comes to a given ΔW, at as many trained numbers as a LoRA.

For a LoRA of rank r the answer is known (Eckart and Young): its error is √Σ_{i>r} σᵢ², the bound that the paper's eq. 8
gives without the root. Others are fitted, so what is found for them is an upper bound on their smallest error.
"""

from typing import Any

import numpy as np
import peft
import torch
from jaxtyping import Float
from torch import Tensor, nn

from randlora.adapter import AdapterLayer
from randlora.adapter_config import AdapterConfig
from randlora.analysis.bars import bar
from randlora.errors import ConfigError
from randlora.methods.budget import fit_rank
from randlora.methods.randlora import RandLoraConfig
from randlora.result import Result

METHODS: dict[str, AdapterConfig] = {
    "structured": RandLoraConfig(bases="structured", target_modules=["0"]),
    "uniform": RandLoraConfig(bases="uniform", target_modules=["0"]),
}
RANKS = (2, 4, 8, 16)
"""Ranks of the LoRAs whose numbers of trained numbers are compared at."""


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


def fitted_error(target: Float[Tensor, "rows columns"], config: AdapterConfig, steps: int) -> tuple[float, int]:
    """The error that a method comes to by L-BFGS, as a share of the target's norm, and its trained numbers.

    Args:
        target: In float64.
        config: Of the method, for a module called "0".
        steps: Iterations at most.
    """
    rows, columns = target.shape
    net = nn.Sequential(nn.Linear(columns, rows, bias=False).double())
    model = peft.get_peft_model(net, config)
    layer = next(module for module in model.modules() if isinstance(module, AdapterLayer))
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
        return (layer.delta_weight("default") - target).square().sum() / target.square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return float(loss().detach().sqrt()), sum(parameter.numel() for parameter in trained)


def analyze_theory(rows: int = 96, columns: int = 64, *, seed: int = 0, steps: int = 300) -> Result:
    """Errors of RandLoRA by number of trained numbers, beside the smallest that a LoRA can have.

    Args:
        rows: Of ΔW.
        columns: Of ΔW.
        seed: Of the matrices; the bases have seeds of their own.
        steps: Iterations of each fit.

    Raises:
        ConfigError: A side is smaller than twice the largest rank compared at.
    """
    smallest = 2 * max(RANKS)
    if min(rows, columns) < smallest:
        raise ConfigError("--rows, --columns", expected=f"{smallest} or more", got=f"{rows}, {columns}")
    found: list[dict[str, Any]] = []
    wanted = targets(rows, columns, seed)
    with bar("theory", "fit", len(wanted) * len(RANKS) * len(METHODS)) as progress:
        for name, target in wanted.items():
            for rank in RANKS:
                row: dict[str, Any] = {"ΔW": name, "LoRA r": rank, "numbers": rank * (rows + columns)}
                row["LoRA"] = lora_error(target, rank)
                for method, config in METHODS.items():
                    net = nn.Sequential(nn.Linear(columns, rows))
                    budgeted = fit_rank(config, net, lora_rank=rank)
                    row[method], row[f"{method} numbers"] = fitted_error(target, budgeted, steps)
                    progress.update()
                found.append(row)
    title = f"Error of the nearest ΔW of each method, {rows} × {columns}"
    return Result("theory", title, _in_words(found), found, {"rows": found, "methods": ["LoRA", *METHODS]})


def _in_words(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row["ΔW"] for row in found):
        rows = [row for row in found if row["ΔW"] == name]
        known = [row["numbers"] for row in rows], [row["LoRA"] for row in rows]
        nearer = [
            f"{method} is nearer at {numbers:,} numbers"
            for row in rows
            for method in METHODS
            # A budget is met up to the next rank: a LoRA of as many numbers lies between two of the table.
            if row[method] < np.interp(numbers := row[f"{method} numbers"], *known)
        ]
        lines.append(f"{name}: {', '.join(nearer) or 'LoRA is nearer at all numbers'}")
    return lines
