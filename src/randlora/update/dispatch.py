"""The cost model: which strategy is cheapest for a layer and a batch, pass by pass.

A cost is the time of a strategy beyond what both share: what it does, counted, times a rate each. The rates are fitted
to measured times (`benchmarks/costs.py`; tables in docs/performance.md).
"""

from typing import NamedTuple

import torch

from randlora.update.dense import gradient_counts, product_price
from randlora.update.operators import UpdateSpec

FOLDED, FACTORED = "folded", "factored"


class Plan(NamedTuple):
    """Strategy of each pass, `folded` or `factored`."""

    forward: str
    backward: str


class Rates(NamedTuple):
    """Prices, in multiply-adds of a large matrix product.

    Attributes:
        entry: An entry of a folded weight: read W₀, add, round, write.
        product: A multiply-add of a product with B or C, with F_k or L.
    """

    entry: float
    product: float


RATES = {"structured": Rates(entry=69, product=2.3), "dense": Rates(entry=4.8, product=1.1)}
# A sparse product with B leaves the addition to W₀ to a pass of its own, like that of the structured bases.
SPARSE = Rates(entry=69, product=1.1)


def counts(strategy: str, spec: UpdateSpec, tokens: int, *, backward: bool) -> Rates:
    """How many entries and multiply-adds a pass has.

    Args:
        strategy: `folded` or `factored`.
        spec: The adapter on the layer.
        tokens: T, rows of the input.
        backward: The backward pass: ∂x and the gradients of λ and γ. A factored pass over a layer with in = m computes
            ∂y·B for both.
    """
    small, large, hidden = spec.small, spec.large, spec.r * spec.num_bases
    if spec.kind == "dense":
        fold: float = product_price(spec.density) * large * small * hidden
        to_small, to_large = tokens * hidden * small, tokens * hidden * large
    else:
        fold, to_small, to_large = 0, tokens * small * spec.num_bases, tokens * large * spec.r
    gradients: float = 0
    if backward:
        dense = spec.kind == "dense"
        gradients = min(gradient_counts(tokens, small, large, hidden, spec.density)) if dense else to_large + to_small
    if strategy == FOLDED:
        return Rates(large * small, fold + gradients)
    if backward and spec.small_is_input:
        gradients = to_small
    return Rates(0, to_small + to_large + gradients)


def cost(strategy: str, spec: UpdateSpec, tokens: int, *, backward: bool) -> float:
    """Estimated cost of one pass, in multiply-adds of a large matrix product; the arguments are those of `counts`."""
    rates = RATES[spec.kind] if spec.density == 1 else SPARSE
    done = counts(strategy, spec, tokens, backward=backward)
    return sum(rate * count for rate, count in zip(rates, done, strict=True))


def choose_plan(spec: UpdateSpec, tokens: int) -> Plan:
    """The strategy that `cost` finds cheaper, for each pass; factored where torch.export leaves the rows open.

    Args:
        spec: The adapter on the layer.
        tokens: T, rows of the input.
    """
    if torch.compiler.is_exporting() and type(tokens) is not int:  # one graph for every T, without branches
        return Plan(FACTORED, FACTORED)
    return Plan(_cheaper(spec, tokens, backward=False), _cheaper(spec, tokens, backward=True))


def _cheaper(spec: UpdateSpec, tokens: int, *, backward: bool) -> str:
    folded, factored = (cost(strategy, spec, tokens, backward=backward) for strategy in (FOLDED, FACTORED))
    return FOLDED if folded <= factored else FACTORED
