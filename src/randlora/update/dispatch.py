"""The cost model: which strategy is cheapest for a layer and a batch, pass by pass.

A cost is the time of a strategy beyond what both share, in multiply-adds of a large matrix product: the matrix products
at that price, and on top of it what narrow products and elementwise passes take longer. The rates below are fitted to
measured times (`benchmarks/costs.py`, table in docs/performance.md).
"""

from typing import NamedTuple

from randlora.update.operators import UpdateSpec

FOLDED, FACTORED = "folded", "factored"


class Plan(NamedTuple):
    """Strategy of each pass, `folded` or `factored`."""

    forward: str
    backward: str


class Rates(NamedTuple):
    """Prices in multiply-adds of a large product.

    Attributes:
        entry: An entry of a folded weight: read W₀, add, round, write.
        block: A multiply-add of a product with the n × n blocks F_k, and of L.
        row: An entry of the rows that a factored pass reads and writes beside its products.
        call: What the further calls of a factored pass cost whatever their size.
    """

    entry: float
    block: float
    row: float
    call: float


RATES = {"structured": Rates(50, 1.7, 20, 3e7), "dense": Rates(50, 1.0, 20, 1e7)}


def cost(strategy: str, spec: UpdateSpec, tokens: int, *, backward: bool) -> float:
    """Estimated cost of one pass.

    Args:
        strategy: `folded` or `factored`.
        spec: The adapter on the layer.
        tokens: T, rows of the input.
        backward: The backward pass (∂x; the gradients of λ and γ cost the same either way, but for ∂y·B, which a
            factored pass over a layer with in = m shares with them).
    """
    rates = RATES[spec.kind]
    small, large = spec.small, spec.large
    if strategy == FOLDED:
        product = large * small * spec.r * spec.num_bases if spec.kind == "dense" else 0
        return product + rates.entry * large * small
    shared = backward and spec.small_is_input
    if spec.kind == "dense":
        hidden = spec.r * spec.num_bases
        # The gradients save less by ∂y·B where they would have gone by way of G = ∂yᵀx.
        shared = shared and tokens <= small
        products = tokens * hidden * (small + (0 if shared else large))
    else:
        products = tokens * (small * spec.num_bases + (0 if shared else large * spec.r))
    return rates.call + rates.block * products + rates.row * tokens * (small + (0 if shared else large))


def choose_plan(spec: UpdateSpec, tokens: int) -> Plan:
    """The strategy that `cost` finds cheaper, for each pass.

    Args:
        spec: The adapter on the layer.
        tokens: T, rows of the input.
    """
    return Plan(_cheaper(spec, tokens, backward=False), _cheaper(spec, tokens, backward=True))


def _cheaper(spec: UpdateSpec, tokens: int, *, backward: bool) -> str:
    folded, factored = (cost(strategy, spec, tokens, backward=backward) for strategy in (FOLDED, FACTORED))
    return FOLDED if folded <= factored else FACTORED
