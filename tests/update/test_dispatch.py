import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from randlora.update import DenseForm, StructuredForm, UpdateSpec, choose_plan
from randlora.update.dense import DenseOperator, gradient_counts
from randlora.update.dispatch import cost
from sizes import sizes

layers = {
    "kind": st.sampled_from(["dense", "structured"]),
    "small": st.integers(1, 8192),
    "more": st.integers(0, 30_000),
    "r": st.integers(1, 256),
    "small_is_input": st.booleans(),
}


# The cost of a form without its tensors, which it does not read.
FORMS = {"dense": DenseForm(*[torch.empty(0)] * 2), "structured": StructuredForm(*[torch.empty(0)] * 3)}


def _adapter(kind, small, large, r, small_is_input=True):
    return FORMS[kind], UpdateSpec(sizes(r, small, large), small_is_input, scaling=1.0)


@given(**layers, tokens=st.integers(0, 100_000), further=st.integers(0, 100_000))
def test_once_folded_always_folded(kind, small, more, r, small_is_input, tokens, further):
    adapter = _adapter(kind, small, small + more, r, small_is_input)
    fewer, rows = choose_plan(*adapter, tokens), choose_plan(*adapter, tokens + further)
    for before, after in zip(fewer, rows, strict=True):
        assert (before, after) != ("folded", "factored")


@pytest.mark.parametrize("kind", ["dense", "structured"])
@pytest.mark.parametrize(("small", "large"), [(2048, 2048), (768, 3072), (4096, 4096), (4096, 14336)])
@pytest.mark.parametrize("r", [4, 16, 64])
def test_one_token_of_a_large_layer_is_factored(kind, small, large, r):
    assert choose_plan(*_adapter(kind, small, large, r), 1) == ("factored", "factored")


@pytest.mark.parametrize(("small", "large"), [(384, 384), (768, 3072), (4096, 4096), (4096, 14336)])
@pytest.mark.parametrize("r", [4, 16, 64])
def test_many_tokens_with_dense_bases_are_folded(small, large, r):
    assert choose_plan(*_adapter("dense", small, large, r), 2 * large) == ("folded", "folded")


@given(**layers, tokens=st.integers(1, 100_000), strategy=st.sampled_from(["factored", "folded"]))
def test_costs_grow_with_the_work(kind, small, more, r, small_is_input, tokens, strategy):
    adapter = _adapter(kind, small, small + more, r, small_is_input)
    for backward in (False, True):
        here = cost(strategy, *adapter, tokens, backward=backward)
        assert here > 0
        assert cost(strategy, *adapter, tokens + 1, backward=backward) >= here


@pytest.mark.parametrize(("small", "large", "hidden"), [(6, 6, 6), (6, 15, 6), (6, 15, 8), (6, 15, 4), (6, 15, 2)])
@pytest.mark.parametrize("tokens", [2, 6, 7, 14, 15, 16, 90])  # with at most r/2 rows no matrix of C's size is made
def test_gradients_of_dense_bases_take_the_fewest_products(small, large, hidden, tokens):
    r = 2
    operator = DenseOperator(torch.randn(r, small), torch.randn(large, hidden))
    lambda_, gamma = torch.randn(hidden // r, r), torch.randn(hidden // r, small)
    with FlopCounterMode(display=False) as counter:
        operator.gradients(torch.randn(tokens, large), torch.randn(tokens, small), lambda_, gamma, 1.0)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm] // 2
    assert products == min(gradient_counts(tokens, small, large, hidden))


@given(tokens=st.integers(0, 10_000), small=st.integers(1, 4096), more=st.integers(0, 10_000))
def test_the_weights_gradient_pays_with_more_rows_than_the_larger_side(tokens, small, more):
    by_weight, by_rows = gradient_counts(tokens, small, small + more, hidden=small)
    assert (by_weight < by_rows) == (tokens > small + more)
