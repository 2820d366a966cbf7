"""The cost model: which strategy is cheapest for a layer and a batch.

Costs are multiply-adds of the matrix products (T rows, sides m ≤ M, n bases of rank r), forward or forward and
backward, beyond what both strategies share. A product of narrow blocks and an elementwise pass over a matrix run far
below the speed of a large product; the two factors below stand for that.
"""

from randlora.update.operators import UpdateSpec

_ELEMENTWISE = 40.0  # multiply-adds of a large product in the time of one elementwise pass over one entry
_NARROW = 2.0  # time of a multiply-add in a block or transform product over one in a large product


def update_cost(strategy: str, spec: UpdateSpec, tokens: int, *, training: bool) -> float:
    """Estimated cost of a strategy, in multiply-adds of a large matrix product.

    Args:
        strategy: `factored` or `folded`.
        spec: The adapter on the layer.
        tokens: T, rows of the input.
        training: Whether a backward pass follows.
    """
    small, large, bases_count = spec.small, spec.large, spec.num_bases
    hidden = spec.r * bases_count
    if spec.kind == "dense":
        coefficients = _ELEMENTWISE * hidden * small
        apply: float = tokens * hidden * (small + large)
        fold = large * hidden * small + _ELEMENTWISE * large * small + coefficients
        gradient: float = min(tokens * large * small + large * hidden * small, tokens * hidden * (large + small))
    else:
        coefficients = _ELEMENTWISE * 2 * small * bases_count
        block, transform = _NARROW * small * bases_count, _NARROW * large * spec.r
        apply = tokens * (block + transform + _ELEMENTWISE * (small + large))
        fold = coefficients + _ELEMENTWISE * large * small
        gradient = tokens * (block + transform)
    if strategy == "folded":
        return fold + (fold + gradient if training else 0.0)
    return coefficients + apply + (coefficients + apply + gradient if training else 0.0)


def choose_strategy(spec: UpdateSpec, tokens: int, *, training: bool) -> str:
    """`folded` or `factored`, whichever `update_cost` finds cheaper.

    Args:
        spec: The adapter on the layer.
        tokens: T, rows of the input.
        training: Whether a backward pass follows.
    """
    costs = {strategy: update_cost(strategy, spec, tokens, training=training) for strategy in ("folded", "factored")}
    return min(costs, key=lambda strategy: costs[strategy])
