import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.update import UpdateSpec, choose_strategy
from randlora.update.dispatch import update_cost

layers = {
    "kind": st.sampled_from(["dense", "structured"]),
    "small": st.integers(1, 8192),
    "more": st.integers(0, 30_000),
    "r": st.integers(1, 256),
    "training": st.booleans(),
}


def _spec(kind, small, large, r):
    return UpdateSpec(kind, r, small, large, small_is_input=True, scaling=1.0)


@given(**layers, tokens=st.integers(0, 100_000), further=st.integers(0, 100_000))
def test_once_folded_always_folded(kind, small, more, r, training, tokens, further):
    def choice(count):
        return choose_strategy(_spec(kind, small, small + more, r), count, training=training)

    if choice(tokens) == "folded":
        assert choice(tokens + further) == "folded"


@pytest.mark.parametrize("kind", ["dense", "structured"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("small", "large"), [(384, 384), (768, 3072), (4096, 4096), (4096, 14336)])
@pytest.mark.parametrize("r", [4, 16, 64])
def test_one_token_is_factored(kind, small, large, r, training):
    assert choose_strategy(_spec(kind, small, large, r), 1, training=training) == "factored"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("small", "large"), [(384, 384), (768, 3072), (4096, 4096), (4096, 14336)])
@pytest.mark.parametrize("r", [4, 16, 64])
def test_many_tokens_with_dense_bases_are_folded(small, large, r, training):
    assert choose_strategy(_spec("dense", small, large, r), 2 * small, training=training) == "folded"


@given(**layers, tokens=st.integers(1, 100_000), strategy=st.sampled_from(["factored", "folded"]))
def test_costs_grow_with_the_work(kind, small, more, r, training, tokens, strategy):
    spec = _spec(kind, small, small + more, r)
    cost = update_cost(strategy, spec, tokens, training=training)
    assert cost > 0
    assert update_cost(strategy, spec, tokens + 1, training=training) >= cost
    assert update_cost(strategy, spec, tokens, training=True) >= cost
