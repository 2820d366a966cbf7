"""Products of trained numbers, computed in their dtype and rounded once to that of the activations."""

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.update.scratch import eager


def rounded_product(
    left: Float[Tensor, "t r one"], right: Float[Tensor, "t r w"], dtype: torch.dtype, terms: int
) -> Float[Tensor, "n r w"]:
    """Left · right, entry by entry, the sums of rows j, j + terms, j + 2·terms, … of it.

    Args:
        left: Trained numbers λ.
        right: Trained numbers γ by blocks, of the same dtype.
        dtype: Of the result.
        terms: n, how many rows the result has; t where nothing is summed.
    """
    if len(left) == terms and eager(left) and eager(right):
        # An operation rounds to the dtype of `out` as it writes: no float32 copy in between, no second launch.
        return torch.mul(left, right, out=right.new_empty(right.shape, dtype=dtype))
    product = left * right
    if len(left) > terms:
        product = product.unflatten(0, (-1, terms)).sum(dim=0)
    return product.to(dtype)
