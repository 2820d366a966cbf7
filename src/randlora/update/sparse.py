"""Products with a matrix that is mostly zeros, by its other entries alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# A multiply-add of a sparse product takes as long as so many of a dense one: 5 to 8 in bfloat16 (14 where rows have a
# handful), 2 to 4 in float32; see `benchmarks/ternary.py`.
ENTRY_PRICE = 5


class SparseRows(NamedTuple):
    """A matrix by rows.

    A product is a bag of embeddings: its row i adds up the rows of the right side that row i of this matrix names, each
    times its entry. PyTorch's products with sparse matrices are slower on a CPU, or have no bfloat16
    (`benchmarks/ternary.py`).

    Attributes:
        values: The entries that are not zero, row after row.
        columns: The column of each.
        starts: Where each row starts, and where the last one ends.
    """

    values: Float[Tensor, " entries"]
    columns: Int[Tensor, " entries"]
    starts: Int[Tensor, " rows_and_end"]

    def times(self, matrix: Float[Tensor, "inner columns"]) -> Float[Tensor, "rows columns"]:
        """The product with a matrix of the dtype of the values."""
        scale_by_frequency, mode_sum, sparse_gradient, last_start_included = False, 0, False, True
        return torch.embedding_bag(
            matrix.contiguous(),
            self.columns,
            self.starts,
            scale_by_frequency,
            mode_sum,
            sparse_gradient,
            self.values,
            last_start_included,
        )[0]


class SparseMatrix(NamedTuple):
    """A matrix and its transpose, each by rows."""

    by_rows: SparseRows
    transposed: SparseRows

    def density(self) -> float:
        """The share of the entries that are not zero."""
        rows, columns = len(self.by_rows.starts) - 1, len(self.transposed.starts) - 1
        return len(self.by_rows.values) / (rows * columns)
