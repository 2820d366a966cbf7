"""CKA from Gram matrices of minibatches, by the unbiased estimator of HSIC (Song et al., 2012; Nguyen et al., 2021)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 4
"""Examples that the unbiased estimator needs in a batch."""


def gram(features: Float[Tensor, "n width"]) -> Float[Tensor, "n n"]:
    """X·Xᵀ in float64 with a zero diagonal.

    The mean is taken off before: it changes no HSIC and keeps the products small.
    """
    centred = features.double() - features.double().mean(dim=0)
    return (centred @ centred.T).fill_diagonal_(0.0)


def unbiased_hsic(K: Float[Tensor, "n n"], L: Float[Tensor, "n n"]) -> float:
    """HSIC₁ of two Gram matrices of the same n examples, whose diagonals are zero.

        [tr(K·L) + 1ᵀK1·1ᵀL1 / ((n − 1)(n − 2)) − 2·1ᵀK·L1 / (n − 2)] / (n(n − 3))

    Its mean is 0 for independent features, however few the examples; n is `SMALLEST` or more.
    """
    n = len(K)
    trace = (K * L).sum()  # both are symmetric
    sums = K.sum() * L.sum() / ((n - 1) * (n - 2))
    cross = 2 * (K.sum(dim=0) @ L.sum(dim=0)) / (n - 2)
    return float(trace + sums - cross) / (n * (n - 3))


def minibatch_cka(first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[float | None, float | None]:
    """CKA of two layers: the three HSICs are summed over the batches, then divided.

    Args:
        first: Gram matrices of one layer, batch by batch.
        second: Of the other layer, for the same batches.

    Returns:
        CKA, 1 for features that differ by a rotation and a scale; and its standard error, by the jackknife over
        batches, None for a single one. Both None where a layer's features do not vary.
    """
    terms = torch.tensor(
        [(unbiased_hsic(K, L), unbiased_hsic(K, K), unbiased_hsic(L, L)) for K, L in zip(first, second, strict=True)],
        dtype=torch.float64,
    ).reshape(-1, 3)
    value = _ratio(terms.sum(dim=0))
    if value is None or len(terms) < 2:
        return value, None
    without = [_ratio(terms.sum(dim=0) - term) for term in terms]
    left = torch.tensor([one for one in without if one is not None], dtype=torch.float64)
    spread = math.sqrt((len(left) - 1) * float(left.var(unbiased=False))) if len(left) > 1 else None
    return value, spread


def _ratio(sums: Tensor) -> float | None:
    cross, own, other = sums.tolist()
    return cross / math.sqrt(own * other) if own > 0 and other > 0 else None
