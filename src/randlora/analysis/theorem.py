"""Two statements of the paper in numbers: Theorem 4.1 (a sum of terms of full rank) and § C.6 (sparse bases).

Theorem 4.1: cut ΔW = U·Σ·Vᵀ into n blocks of r singular values. Where a term B_j·Λ_j·A_j·Γ_j is within ε of its block,
for every j, the terms together are within n·ε of ΔW; and each term has rank r, whatever its diagonals.

§ C.6: bases of entries that are mostly zero keep the rank. Column i of ΔW is a product with column i of A, so the rank
can be no more than the number of columns of A that have an entry.
"""

from collections.abc import Sequence
from math import isqrt, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.analysis.fitting import fit, fitted_error
from randlora.bases import DenseBases
from randlora.methods.randlora import RandLoraConfig
from randlora.update import Sizes, reference_delta_weight

TERM_RANKS = (8, 16)
"""Basis ranks at which ΔW is cut into terms."""
SPARSE_RANKS = (4, 16)
_STEPS = 100


def terms_of(name: str, target: Float[Tensor, "rows columns"], steps: int) -> list[dict[str, Any]]:
    """Each term fitted to its block, and what they come to together; a row for each basis rank.

    Args:
        name: What ΔW is called.
        target: ΔW, of norm 1, in float64.
        steps: Iterations of a fit at most.
    """
    U, S, Vh = torch.linalg.svd(target, full_matrices=False)
    rows = []
    for r in TERM_RANKS:
        places = range(0, len(S), r)
        blocks = [U[:, place : place + r] * S[place : place + r] @ Vh[place : place + r] for place in places]
        terms = [fit(block, _basis(r, number), min(steps, _STEPS))[0] for number, block in enumerate(blocks)]
        largest = max(float((term - block).norm()) for term, block in zip(terms, blocks, strict=True))
        whole = RandLoraConfig(bases="uniform", r=r, target_modules=["0"])
        rows.append(
            {
                "ΔW": name,
                "r": r,
                "terms n": len(blocks),
                "least rank of a term": min(int(torch.linalg.matrix_rank(term)) for term in terms),
                "ε": largest,
                "n·ε": len(blocks) * largest,
                "error of the sum": float((torch.stack(terms).sum(dim=0) - target).norm()),
                "fitted together": fitted_error(target, whole, steps)[0],
            }
        )
    return rows


def _basis(r: int, seed: int) -> RandLoraConfig:
    return RandLoraConfig(bases="uniform", r=r, num_bases=1, seed=seed, target_modules=["0"])


def terms_in_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Whether the theorem holds, and how much its bound leaves over."""
    lines = []
    for row in rows:
        holds = "within" if row["error of the sum"] <= row["n·ε"] else "NOT within"
        lines.append(
            f"{row['ΔW']}, r = {row['r']}: {row['terms n']} terms of rank {row['least rank of a term']} at least; "
            f"their sum is {row['error of the sum']:.2f} from ΔW, {holds} n·ε = {row['n·ε']:.2f}; fitted together, "
            f"{row['fitted together']:.2f}"
        )
    return lines


def sparse_ranks(rows: int, columns: int) -> list[dict[str, Any]]:
    """The rank of ΔW for random diagonals, by how sparse the bases are.

    Args:
        rows: Of ΔW.
        columns: Of ΔW.
    """
    small, large = sorted((rows, columns))
    found = []
    for r in SPARSE_RANKS:
        sizes = Sizes(r, -(-small // r), small, large)
        for s in (2.0, 6.0, sqrt(small), 32.0, 100.0):
            form = DenseBases("ternary", 0, s).form(sizes, torch.device("cpu"), torch.float64)
            A, B = form.operator(sizes).pair()
            generator = torch.Generator().manual_seed(0)
            lambda_ = torch.randn(sizes.num_bases, r, dtype=torch.float64, generator=generator)
            gamma = torch.randn(sizes.num_bases, small, dtype=torch.float64, generator=generator)
            delta = reference_delta_weight(A, B, lambda_, gamma, 1.0, small_is_input=True)
            found.append(
                {
                    "r": r,
                    "s": "√m" if s == sqrt(small) and isqrt(small) ** 2 != s else f"{s:g}",
                    "entries not zero (%)": 100 * min(1.0, 2 / s),
                    "columns of A met": int((A.abs().sum(dim=0) > 0).sum()),
                    "rank of B": int(torch.linalg.matrix_rank(B)),
                    "rank of ΔW": int(torch.linalg.matrix_rank(delta)),
                    "full rank": small,
                }
            )
    return found


def sparse_in_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Up to which sparsity the rank is full."""
    lines = []
    for r in dict.fromkeys(row["r"] for row in rows):
        full = [row["s"] for row in rows if row["r"] == r and row["rank of ΔW"] == row["full rank"]]
        words = f"full rank with s = {', '.join(full)}" if full else "full rank at no sparsity"
        worst = next(row for row in reversed(rows) if row["r"] == r)
        lines.append(
            f"sparse bases of rank {r}: {words}; with s = {worst['s']} A meets {worst['columns of A met']} of "
            f"{worst['full rank']} columns and ΔW has rank {worst['rank of ΔW']}"
        )
    return lines
