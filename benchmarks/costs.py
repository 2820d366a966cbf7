"""The rates of the cost model (src/randlora/update/dispatch.py), fitted to the times of single layers.

    python benchmarks/costs.py                    # reads benchmarks/results/linears.json

For each cell the time of a factored pass minus that of a folded one is a sum of what the model counts, times a rate
each. The rates are those of the least relative squares, none below zero. Printed are the rates in picoseconds and in
multiply-adds of a large product, which is the base layer's own at 1,024 and more rows.
"""

import json
import statistics

import torch

from linears import FAMILIES, RESULTS, R
from randlora.update import DenseForm, Form, Sizes, StructuredForm, UpdateSpec
from randlora.update.dispatch import FACTORED, FOLDED, counts
from randlora.update.operators import Rates

DTYPE = "bf16"


def adapter_of(shape: tuple[int, int], family: str) -> tuple[Form, UpdateSpec]:
    """The adapter of a cell; the form without its tensors, which the model does not read."""
    small, large = sorted(shape)
    nothing = torch.empty(0)
    form = StructuredForm(nothing, nothing, nothing) if family == "structured" else DenseForm(nothing, nothing)
    return form, UpdateSpec(Sizes(R, -(-small // R), small, large), shape[1] <= shape[0], scaling=1.0)


def product_rate(cells: dict) -> float:
    """Picoseconds of a multiply-add of the base layer, median over the cells with 1,024 rows and more."""
    rates = []
    for name, entry in cells.items():
        shape, tokens = parse(name)
        if tokens >= 1024:
            rates.append(1e9 * entry["forward"]["base"]["median"] / (shape[0] * shape[1] * tokens))
    return statistics.median(rates)


def parse(name: str) -> tuple[tuple[int, int], int]:
    """(out, in) and rows of a cell's name."""
    layer, tokens = name.split(", ")[:2]
    out, inputs = layer.split("x")
    return (int(out), int(inputs)), int(tokens)


def equations(cells: dict, family: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of counts (folded negative) and the differences in picoseconds, over the two passes of every cell."""
    rows, differences = [], []
    for name, entry in cells.items():
        shape, tokens = parse(name)
        for backward in (False, True):
            times = entry["backward" if backward else "forward"]
            names = [f"folded/{s}" if backward else f"{s}/{s}" for s in (FACTORED, FOLDED)]
            factored, folded = (times[f"{family}, {n}"]["median"] for n in names)
            adapter = adapter_of(shape, family)
            here = [
                torch.tensor(counts(strategy, *adapter, tokens, backward=backward), dtype=torch.float64)
                for strategy in (FACTORED, FOLDED)
            ]
            weight = 1 / min(factored, folded)  # a relative error counts alike in every cell
            rows.append((here[0] - here[1]) * weight)
            differences.append(1e9 * (factored - folded) * weight)
    return torch.stack(rows), torch.tensor(differences, dtype=torch.float64)


def least_squares(matrix: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Non-negative least squares by coordinate descent on the normal equations."""
    scale = matrix.norm(dim=0)
    scaled = matrix / scale
    normal, right = scaled.T @ scaled, scaled.T @ target
    solution = torch.zeros_like(right)
    for _ in range(20_000):
        for i in range(len(solution)):
            rest = right[i] - normal[i] @ solution + normal[i, i] * solution[i]
            solution[i] = (rest / normal[i, i]).clamp(min=0)
    return solution / scale


def main() -> None:
    """Print the rates."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    cells = {name: entry for name, entry in results["cells"].items() if not name.endswith("fp32")}
    product = product_rate(cells)
    print(f"a multiply-add of a large product: {product:.2f} ps")
    for family in FAMILIES:
        rates = least_squares(*equations(cells, family))
        named = dict(zip(Rates._fields, rates.tolist(), strict=True))
        print(family, ", ".join(f"{k} {v:.3g} ps = {v / product:.3g}" for k, v in named.items()))


if __name__ == "__main__":
    main()
