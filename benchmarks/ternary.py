"""Products with ternary bases: additions of rows in place of multiplications, against the dense product.

    python benchmarks/ternary.py                  # results in benchmarks/results/ternary.json

Every product of the update that has B as an operand, by each way that PyTorch has on a CPU, over the dense product in
the same dtype; and whole layers, forward and backward, with the products that are in use against dense ones. All ways
of a product in turn, in one process. With one thread (the default) what is counted is its processor time, so that other
programs on the machine do not add to it; with more, the time that passes. Ratios are what counts.

No time is reported for a product that is further from the float64 one than a few roundings.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from linears import TOLERANCE, adapted, passes
from measure import in_turn, relative_error, steady_heap, summary
from randlora import RandLoraConfig
from randlora.bases import DenseBases
from randlora.training.run.record import hardware, versions
from randlora.update import Sizes
from randlora.update.sparse import SparseRows

RESULTS = Path(__file__).parent / "results" / "ternary.json"
LAYERS = {"768x768, r 6": (768, 768, 6), "4096x1024, r 16": (4096, 1024, 16)}  # (out, in, r)
SPARSITIES = ("2", "6", "sqrt", "100", "200")  # of the paper
TOKENS = (1, 64, 1024)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CPU = torch.device("cpu")
Calls = dict[str, Callable[[], Tensor]]


def by_rows(matrix: Tensor) -> SparseRows:
    """The entries of a matrix that are not zero."""
    row, column = matrix.nonzero(as_tuple=True)
    starts = torch.searchsorted(row, torch.arange(len(matrix) + 1))
    return SparseRows(matrix[row, column], column.int(), starts.int())


def products(left: Tensor, right: Tensor) -> Calls:
    """Ways to left · right for a ternary left side; what they need of it alone is made beforehand."""
    rows, csr = by_rows(left), left.to_sparse_csr()
    signed = rows.columns + (rows.values < 0) * len(right)
    row = torch.arange(len(left)).repeat_interleave(rows.starts.diff())
    eighths = left.to(torch.int8)

    def bag_of_both_signs() -> Tensor:
        table = torch.cat([right, -right])
        return torch.nn.functional.embedding_bag(signed, table, rows.starts, mode="sum", include_last_offset=True)

    def gathered() -> Tensor:
        return torch.zeros(len(left), right.shape[1], dtype=right.dtype).index_add_(
            0, row, right[rows.columns] * rows.values[:, None]
        )

    def eight_bits() -> Tensor:
        scale = right.abs().amax(dim=0).float() / 127
        return (torch._int_mm(eighths, (right / scale).round().to(torch.int8)) * scale).to(right.dtype)

    ways: Calls = {
        "dense": lambda: left @ right,
        "bag of rows times their signs": lambda: rows.times(right),
        "bag of rows of both signs": bag_of_both_signs,
        "CSR": lambda: csr @ right,
        "CSR, reduce": lambda: torch.sparse.mm(csr, right, "sum"),
        "int8": eight_bits,
    }
    if len(row) * 20 < left.numel():  # it writes a row for each entry
        ways["gather, index_add"] = gathered
    return ways


def of_rows(left: Tensor, rows: Tensor) -> Calls:
    """Ways to rows · leftᵀ: a sparse product from the left takes copies of the rows by columns."""
    sparse = by_rows(left)

    def copied() -> Tensor:
        return sparse.times(rows.T.contiguous()).T.contiguous()

    return {"dense": lambda: rows @ left.T, "bag, with copies": copied}


def measured(name: str, calls: Calls, dtype: torch.dtype, exact: Tensor, clock: Callable, repetitions: int) -> dict:
    """Times of the ways that there are in this dtype, and how many times faster than the dense one each is.

    Raises:
        SystemExit: A product is wrong: nothing may be reported.
    """
    errors, missing = {}, {}
    for way in list(calls):
        try:
            found = calls[way]()
        except RuntimeError as error:
            missing[way] = str(error).splitlines()[0]
            del calls[way]
            continue
        errors[way] = relative_error([found], [exact])
        if errors[way] > TOLERANCE[dtype] and way != "int8":
            raise SystemExit(f"{name}, {way}: off by {errors[way]:.3g}: no times reported")
        if errors[way] > TOLERANCE[dtype]:
            missing[way] = f"off by {errors[way]:.3g}"
            del calls[way]
    seconds = in_turn({way: (call,) for way, call in calls.items()}, repetitions, clock=clock)
    return compared({way: [sum(s) for s in each] for way, each in seconds.items()}) | {
        "errors": errors,
        "missing": missing,
    }


def compared(seconds: dict[str, list[float]]) -> dict:
    """Times, and the median of the ratios of the dense way's to each."""
    return {
        "milliseconds": {way: summary(each) | {"min": 1e3 * min(each)} for way, each in seconds.items()},
        "times_faster": {
            way: statistics.median(d / s for d, s in zip(seconds["dense"], each, strict=True))
            for way, each in seconds.items()
        },
    }


def layer_steps(layer: tuple, sparsity: float, dtype: torch.dtype, clock: Callable, repetitions: int) -> dict:
    """Forward and backward of one adapted layer, its products as they are in use and all dense.

    Raises:
        SystemExit: The output or a gradient is wrong: nothing may be reported.
    """
    out, inputs, r = layer
    config = RandLoraConfig(r=r, bases="ternary", sparsity=sparsity, target_modules=["0"])
    torch.manual_seed(0)
    model = adapted(nn.Linear(inputs, out, bias=False, dtype=dtype), config)
    exact = adapted(nn.Linear(inputs, out, bias=False, dtype=torch.float64), config)
    exact.load_state_dict(model.state_dict())

    def use(is_sparse: Callable) -> Callable[[], None]:
        return lambda: setattr(DenseBases, "_is_sparse", is_sparse)

    choose = {"dense": use(lambda *_: False), "in use": use(DenseBases._is_sparse)}
    cells = {}
    for tokens in TOKENS:
        x, direction = torch.randn(tokens, inputs).to(dtype), torch.randn(tokens, out).to(dtype)

        def step(model: nn.Module, x: Tensor = x, direction: Tensor = direction) -> list[Tensor]:
            forward, backward = passes(model, x.requires_grad_(), direction)
            return backward(forward())

        choose["dense"]()
        judge = step(exact, x.double(), direction.double())
        errors = {}
        for way, chosen in choose.items():
            chosen()
            errors[way] = max(relative_error([f], [e]) for f, e in zip(step(model), judge, strict=True))
        if max(errors.values()) > TOLERANCE[dtype]:
            raise SystemExit(f"{layer}, s = {sparsity}, {tokens} rows: off by {errors}: no times reported")
        calls = {way: (chosen, lambda _, step=step: step(model)) for way, chosen in choose.items()}
        seconds = in_turn(calls, repetitions, clock=clock)
        found = compared({way: [s for _, s in each] for way, each in seconds.items()})
        cells[f"{out}x{inputs}, {tokens}"] = found | {"errors": errors}
    return cells


def cell(layer: tuple, sparsity: float, dtype: torch.dtype, clock: Callable, repetitions: int) -> dict:
    """All products and steps of one layer, sparsity and dtype."""
    large, small, r = layer
    A, B = DenseBases("ternary", 0, sparsity).form(Sizes(r, -(-small // r), small, large), CPU, dtype)[:2]
    kept = A.any(dim=0).nonzero()[:, 0]  # the other columns of C, and of ΔW, are zero
    torch.manual_seed(0)
    C = (A.repeat_interleave(B.shape[1] // r, dim=0) * torch.randn(B.shape[1], small)).to(dtype)
    weight_gradient = torch.randn(large, small).to(dtype)

    def columns() -> Tensor:
        return torch.zeros(large, small, dtype=dtype).index_copy_(1, kept, B @ C[:, kept])

    both = dict.fromkeys(((large, small, r), (small, large, r)))
    wanted = {
        "B C": (products(B, C) | {"dense, nonzero columns of C": columns}, B.double() @ C.double()),
        "Bt G": (products(B.T.contiguous(), weight_gradient), B.double().T @ weight_gradient.double()),
    }
    for tokens in TOKENS:
        rows, hidden = torch.randn(tokens, large).to(dtype), torch.randn(tokens, B.shape[1]).to(dtype)
        wanted[f"l B, {tokens}"] = of_rows(B.T, rows), rows.double() @ B.double()
        wanted[f"h Bt, {tokens}"] = of_rows(B, hidden), hidden.double() @ B.double().T
    return {
        "sparsity": sparsity,
        "nonzero": B.count_nonzero().item() / B.numel(),
        "nonzero_columns": len(kept) / small,
        "products": {n: measured(n, c, dtype, exact, clock, repetitions) for n, (c, exact) in wanted.items()},
        "steps": {k: v for turned in both for k, v in layer_steps(turned, sparsity, dtype, clock, repetitions).items()},
    }


def main() -> None:
    """Run every cell and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--sparsities", nargs="+", choices=SPARSITIES, default=list(SPARSITIES))
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    steady_heap()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    for layer, sparsity, dtype in itertools.product(arguments.layers, arguments.sparsities, DTYPES):
        shape = LAYERS[layer]
        s = math.sqrt(min(shape[:2])) if sparsity == "sqrt" else float(sparsity)
        found = cell(shape, s, DTYPES[dtype], clock, arguments.repetitions)
        # Read again each time: an interrupted run keeps what it has.
        cells = json.loads(RESULTS.read_text(encoding="utf-8"))["cells"] if RESULTS.is_file() else {}
        content = {
            "hardware": hardware(CPU, "bf16") | {"threads": arguments.threads, "clock": clock.__name__},
            "versions": versions(),
            "cells": cells | {f"{layer}, s {s:.4g}, {dtype}": found | {"repetitions": arguments.repetitions}},
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"{layer}, s = {s:.4g}, {dtype}", flush=True)
        for part in ("products", "steps"):
            for what, entry in found[part].items():
                faster = ", ".join(f"{way} {f:.2f}" for way, f in entry["times_faster"].items())
                print(f"  {part[:-1]} {what}: {faster}", flush=True)


if __name__ == "__main__":
    main()
