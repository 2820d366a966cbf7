"""The cost model: which strategy is cheapest for a layer and a batch.

Costs are multiply-adds of the matrix products (T rows, sides m ≤ M, n bases of rank r), forward or forward and
backward, beyond what both strategies share. A product of narrow blocks and an elementwise pass over a matrix run far
below the speed of a large product; the two factors below stand for that.
"""

_ELEMENTWISE = 40.0  # multiply-adds of a large product in the time of one elementwise pass over one entry
_NARROW = 2.0  # time of a multiply-add in a block or transform product over one in a large product


def update_cost(strategy: str, kind: str, tokens: int, small: int, large: int, r: int, *, training: bool) -> float:
    """Estimated cost of a strategy, in multiply-adds of a large matrix product.

    Args:
        strategy: `factored` or `folded`.
        kind: `dense` or `structured` bases.
        tokens: T, rows of the input.
        small: m.
        large: M.
        r: Basis rank.
        training: Whether a backward pass follows.
    """
    hidden = -(-small // r) * r
    if kind == "dense":
        coefficients = _ELEMENTWISE * hidden * small
        apply = tokens * hidden * (small + large)
        fold = large * hidden * small + _ELEMENTWISE * large * small + coefficients
        gradient = min(tokens * large * small + large * hidden * small, tokens * hidden * (large + small))
    else:
        bases_count = hidden // r
        coefficients = _ELEMENTWISE * hidden * bases_count
        transform = _NARROW * 2 * max(large, hidden) ** 1.5 + _ELEMENTWISE * (large + hidden)
        block = _NARROW * hidden * bases_count + _ELEMENTWISE * 2 * hidden
        apply = tokens * (transform + block)
        fold = small * (transform + _ELEMENTWISE * (hidden + large)) + coefficients
        gradient = tokens * (transform + block)
    if strategy == "folded":
        return fold + (fold + gradient if training else 0.0)
    return coefficients + apply + (coefficients + apply + gradient if training else 0.0)


def choose_strategy(kind: str, tokens: int, small: int, large: int, r: int, *, training: bool) -> str:
    """`folded` or `factored`, whichever `update_cost` finds cheaper.

    Args:
        kind: `dense` or `structured` bases.
        tokens: T, rows of the input.
        small: m.
        large: M.
        r: Basis rank.
        training: Whether a backward pass follows.
    """
    costs = {
        strategy: update_cost(strategy, kind, tokens, small, large, r, training=training)
        for strategy in ("folded", "factored")
    }
    return min(costs, key=lambda strategy: costs[strategy])
