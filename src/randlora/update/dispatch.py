"""The cost model: which strategy is cheapest for a layer and a batch, pass by pass.

A cost is the time of a strategy beyond what both share: what it does, counted, times a rate each. The rates are fitted
to measured times (`benchmarks/costs.py`; tables in docs/performance.md).
"""

from typing import NamedTuple

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
        row: An entry of the rows that a factored pass reads and writes beside its products.
        call: What the further calls of a factored pass cost whatever their size.
    """

    entry: float
    product: float
    row: float
    call: float


RATES = {"structured": Rates(50, 1.7, 20, 3e7), "dense": Rates(50, 1.0, 20, 1e7)}


def counts(strategy: str, spec: UpdateSpec, tokens: int, *, backward: bool) -> Rates:
    """How much of each a pass does: entries, multiply-adds, entries of rows, calls.

    Args:
        strategy: `folded` or `factored`.
        spec: The adapter on the layer.
        tokens: T, rows of the input.
        backward: The backward pass (∂x; the gradients of λ and γ cost the same either way, but for ∂y·B, which a
            factored pass over a layer with in = m shares with them).
    """
    small, large, hidden = spec.small, spec.large, spec.r * spec.num_bases
    if strategy == FOLDED:
        return Rates(large * small, large * small * hidden if spec.kind == "dense" else 0, 0, 0)
    shared = backward and spec.small_is_input
    if spec.kind == "dense":
        # With more rows than m the gradients go by way of G = ∂yᵀx unless ∂y·B is there already.
        to_large = 0 if shared and tokens <= small else tokens * hidden * large
        products = tokens * hidden * small + to_large
    else:
        products = tokens * (small * spec.num_bases + (0 if shared else large * spec.r))
    return Rates(0, products, tokens * (small + (0 if shared else large)), 1)


def cost(strategy: str, spec: UpdateSpec, tokens: int, *, backward: bool) -> float:
    """Estimated cost of one pass, in multiply-adds of a large matrix product; the arguments are those of `counts`."""
    rates, done = RATES[spec.kind], counts(strategy, spec, tokens, backward=backward)
    return sum(rate * count for rate, count in zip(rates, done, strict=True))


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
