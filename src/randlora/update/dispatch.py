"""The cost model: which strategy is cheapest for a layer and a batch, pass by pass.

A cost is the time of a strategy beyond what both share: what it does, counted, times a rate each. The rates are fitted
to measured times (`benchmarks/costs.py`; tables in docs/performance.md).
"""

from typing import NamedTuple

import torch

from randlora.update.operators import Form, Rates, UpdateSpec

FOLDED, FACTORED = "folded", "factored"


class Plan(NamedTuple):
    """Strategy of each pass, `folded` or `factored`."""

    forward: str
    backward: str


def counts(strategy: str, form: Form, spec: UpdateSpec, tokens: int, *, backward: bool) -> Rates:
    """How many entries and multiply-adds a pass has.

    Args:
        strategy: `folded` or `factored`.
        form: What describes the bases.
        spec: The adapter on the layer.
        tokens: T, rows of the input.
        backward: The backward pass: ∂x and the gradients of λ and γ. A factored pass over a layer with in = m computes
            ∂y·B for both.
    """
    work = form.work(spec.sizes, tokens)
    gradients = work.gradients if backward else 0
    if strategy == FOLDED:
        return Rates(spec.sizes.large * spec.sizes.small, work.fold + gradients)
    if backward and spec.small_is_input:
        gradients = work.to_small
    return Rates(0, work.to_small + work.to_large + gradients)


def cost(strategy: str, form: Form, spec: UpdateSpec, tokens: int, *, backward: bool) -> float:
    """Estimated cost of one pass, in multiply-adds of a large matrix product; the arguments are those of `counts`."""
    done = counts(strategy, form, spec, tokens, backward=backward)
    return sum(rate * count for rate, count in zip(form.rates, done, strict=True))


def choose_plan(form: Form, spec: UpdateSpec, tokens: int) -> Plan:
    """The strategy that `cost` finds cheaper, for each pass; factored where torch.export leaves the rows open.

    Args:
        form: What describes the bases.
        spec: The adapter on the layer.
        tokens: T, rows of the input.
    """
    if torch.compiler.is_exporting() and type(tokens) is not int:  # one graph for every T, without branches
        return Plan(FACTORED, FACTORED)
    return Plan(_cheaper(form, spec, tokens, backward=False), _cheaper(form, spec, tokens, backward=True))


def _cheaper(form: Form, spec: UpdateSpec, tokens: int, *, backward: bool) -> str:
    folded, factored = (cost(strategy, form, spec, tokens, backward=backward) for strategy in (FOLDED, FACTORED))
    return FOLDED if folded <= factored else FACTORED
