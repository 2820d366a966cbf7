"""`randlora analyze theory`: how near each method comes to a given ΔW, at as many trained numbers as a LoRA.

For a LoRA of rank r the answer is known (Eckart and Young): its error is √Σ_{i>r} σᵢ², the bound that the paper's eq. 8
gives without the root. Others are fitted, so what is found for them is an upper bound on their smallest error.
"""

from typing import Any

import numpy as np
import peft
from torch import nn

from randlora.analysis.bars import bar
from randlora.analysis.fitting import fitted_error, lora_error, targets
from randlora.analysis.theorem import sparse_in_words, sparse_ranks, terms_in_words, terms_of
from randlora.errors import ConfigError
from randlora.methods import KRAdapterConfig, NolaConfig
from randlora.methods.budget import fit_rank
from randlora.methods.kradapter import METHOD as KRADAPTER
from randlora.methods.randlora import RandLoraConfig
from randlora.result import Result

METHODS = ("structured", "uniform", "vera", "nola", "kradapter")
"""What is held against LoRA: RandLoRA with two families of bases, and other methods that can have as many numbers."""
RANKS = (2, 4, 8, 16)
"""Ranks of the LoRAs whose numbers of trained numbers are compared at."""
LARGEST_SIDE = 4096
"""A larger ΔW would take hours, and more memory than most machines have."""


def config_for(method: str, rows: int, columns: int, lora_rank: int) -> peft.PeftConfig | None:
    """The method with about as many trained numbers as a LoRA; None where it cannot have so many.

    Args:
        method: One of `METHODS`.
        rows: Of ΔW.
        columns: Of ΔW.
        lora_rank: Of the LoRA.
    """
    numbers = lora_rank * (rows + columns)
    if method == "vera":  # it trains a number for each row of ΔW and one for each of its r random directions
        return peft.VeraConfig(r=numbers - rows, target_modules=["0"])
    if method == "nola":
        return NolaConfig(r=2 * lora_rank, num_bases=numbers // 2, target_modules=["0"])
    if method == "kradapter":  # its number is given by the layer's sides, so it is looked at once
        own = KRADAPTER.trained(None, rows, columns)
        nearest = min(RANKS, key=lambda rank: abs(rank * (rows + columns) - own))
        return KRAdapterConfig(target_modules=["0"]) if lora_rank == nearest else None
    net = nn.Sequential(nn.Linear(columns, rows))
    return fit_rank(RandLoraConfig(bases=method, target_modules=["0"]), net, lora_rank=lora_rank)


def analyze_theory(rows: int = 96, columns: int = 64, *, seed: int = 0, steps: int = 300) -> Result:
    """Errors by number of trained numbers, beside the smallest that a LoRA can have; Theorem 4.1 and § C.6 in numbers.

    Args:
        rows: Of ΔW.
        columns: Of ΔW.
        seed: Of the matrices; the bases have seeds of their own.
        steps: Iterations of each fit.

    Raises:
        ConfigError: A side is smaller than twice the largest rank compared at, or above `LARGEST_SIDE`, or the seed is
            none.
    """
    smallest = 2 * max(RANKS)
    if min(rows, columns) < smallest or max(rows, columns) > LARGEST_SIDE:
        expected = f"{smallest} to {LARGEST_SIDE:,}"
        raise ConfigError("--rows, --columns", expected=expected, got=f"{rows}, {columns}")
    if not 0 <= seed < 2**63:
        raise ConfigError("--seed", expected="0 to 2^63 - 1", got=str(seed))
    found: list[dict[str, Any]] = []
    wanted = targets(rows, columns, seed)
    with bar("theory", "fit", len(wanted) * len(RANKS) * len(METHODS)) as progress:
        for name, target in wanted.items():
            for rank in RANKS:
                row: dict[str, Any] = {"ΔW": name, "LoRA r": rank, "numbers": rank * (rows + columns)}
                row["LoRA"] = lora_error(target, rank)
                for method in METHODS:
                    config = config_for(method, rows, columns, rank)
                    known = (None, None) if config is None else fitted_error(target, config, steps)
                    row[method], row[f"{method} numbers"] = known
                    progress.update()
                found.append(row)
    terms = [row for name in ("random", "falling as 1/i") for row in terms_of(name, wanted[name], steps)]
    sparse = sparse_ranks(rows, columns)
    title = f"Error of the nearest ΔW of each method, {rows} × {columns}"
    more = {"Theorem 4.1: ΔW as a sum of terms, one for each basis": terms, "§ C.6: the rank of sparse bases": sparse}
    summary = [*_in_words(found), *terms_in_words(terms), *sparse_in_words(sparse)]
    return Result("theory", title, summary, found, {"rows": found, "methods": ["LoRA", *METHODS]}, more)


def _in_words(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row["ΔW"] for row in found):
        rows = [row for row in found if row["ΔW"] == name]
        known = [row["numbers"] for row in rows], [row["LoRA"] for row in rows]
        nearer = []
        for method in METHODS:
            # A budget is met up to the next rank: a LoRA of as many numbers lies between two of the table.
            pairs = [(row[f"{method} numbers"], row[method]) for row in rows if row[method] is not None]
            inside = [(numbers, error) for numbers, error in pairs if known[0][0] <= numbers <= known[0][-1]]
            where = [f"{numbers:,}" for numbers, error in inside if error < np.interp(numbers, *known)]
            if where:
                nearer.append(f"{method} is nearer than LoRA at {', '.join(where)} numbers")
        lines.append(f"{name}: {'; '.join(nearer) or 'LoRA is nearer at all numbers'}")
    return lines
