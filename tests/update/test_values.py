"""Every strategy against equation 4, in float64: the output and every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randlora.errors import UpdateError

# One of each form and layout; normal and ternary bases are dense as uniform ones, and drawn otherwise only.
FAMILIES = ("uniform", "ternary-20", "structured", "peft", "separate")
STRATEGIES = ("reference", "added", "factored", "folded", "mixed")
# (r, m, M): m = 1, primes, m no multiple of r, r > m, r = m, square, and sides of real models in small.
SHAPES = [
    (1, 1, 1),
    (3, 1, 4),
    (2, 7, 13),
    (4, 6, 6),
    (5, 13, 13),
    (9, 4, 11),
    (6, 6, 17),
    (16, 48, 64),
    (1, 11, 12),
    (9, 11, 12),
]
# Leading dimensions: none, none of length 1, empty, fewer and more rows than sides, three of them.
BATCHES = [(), (1,), (0,), (3, 0), (5,), (70,), (2, 3), (2, 1, 4)]

everywhere = [
    pytest.mark.parametrize("family", FAMILIES),
    pytest.mark.parametrize("strategy", STRATEGIES),
    pytest.mark.parametrize("small_is_input", [True, False], ids=["in<=out", "out<=in"]),
]


def _everywhere(test):
    for mark in everywhere:
        test = mark(test)
    return test


def _agree(case, update, strategy):
    found, expected = case.by(update, strategy), case.expected()
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    direction = torch.randn_like(expected)
    gradients = [torch.autograd.grad(output, case.leaves, direction) for output in (found, expected)]
    for name, ours, theirs in zip(("x", "λ", "γ", "b"), *gradients, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11, msg=lambda text, n=name: f"d{n}: {text}")


@_everywhere
def test_output_and_gradients_for_every_shape(update, make_case, family, strategy, small_is_input):
    for shape in SHAPES:
        _agree(make_case(family, *shape, small_is_input=small_is_input), update, strategy)


@_everywhere
def test_output_and_gradients_for_every_batch(update, make_case, family, strategy, small_is_input):
    for batch in BATCHES:
        _agree(make_case(family, 3, 8, 11, small_is_input=small_is_input, batch=batch), update, strategy)


@_everywhere
def test_inputs_with_strides(update, make_case, family, strategy, small_is_input):
    for batch in ((5,), (2, 3), (70,)):
        case = make_case(family, 3, 8, 11, small_is_input=small_is_input, batch=batch, strided=True)
        assert not case.x.is_contiguous()
        case.weight = case.weight.T.contiguous().T  # as in Conv1D
        _agree(case, update, strategy)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_updates_on_the_same_bases(update, make_case, family, strategy):
    for num_bases in (None,) if family == "peft" else (None, 2):
        _agree(make_case(family, 3, 8, 11, num_bases=num_bases, terms=2), update, strategy)


@settings(max_examples=80)
@given(
    family=st.sampled_from(FAMILIES),
    strategy=st.sampled_from(STRATEGIES),
    small_is_input=st.booleans(),
    r=st.integers(1, 24),
    small=st.integers(1, 24),
    more=st.integers(0, 24),
    batch=st.lists(st.integers(0, 6), max_size=3).map(tuple),
    bias=st.booleans(),
    strided=st.booleans(),
    fewer=st.floats(0, 1),
    terms=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_any_layer(
    update, make_case, family, strategy, small_is_input, r, small, more, batch, bias, strided, fewer, terms, seed
):
    full = -(-small // r)
    case = make_case(
        family,
        r,
        small,
        small + more,
        small_is_input=small_is_input,
        batch=batch,
        bias=bias,
        strided=strided,
        seed=seed,
        num_bases=None if family == "peft" else max(1, round(fewer * full)),
        terms=terms,
    )
    _agree(case, update, strategy)


def test_numerical_gradients_of_the_literal_equation(make_case):
    """The judge's own gradients, once: with `_agree` all others are numerical derivatives too."""
    case = make_case("separate", 3, 4, 5, batch=(3,))

    def output(x, lambda_, gamma, bias):
        case.x, case.lambda_, case.gamma, case.bias = x, lambda_, gamma, bias
        return case.expected()

    assert torch.autograd.gradcheck(output, case.leaves)


@pytest.mark.parametrize("family", ["uniform", "structured"])
@pytest.mark.parametrize("strategy", ["added", "factored", "folded"])
@pytest.mark.parametrize("wanted", ["x", "lambda_", "gamma", "bias"])
def test_each_gradient_alone(update, make_case, family, strategy, wanted):
    case = make_case(family, 3, 8, 11)
    for leaf in case.leaves:
        leaf.requires_grad_(leaf is getattr(case, wanted))
    (found,) = torch.autograd.grad(case.by(update, strategy).square().sum(), [getattr(case, wanted)])
    (expected,) = torch.autograd.grad(case.expected().square().sum(), [getattr(case, wanted)])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("small_is_input", [True, False], ids=["in<=out", "out<=in"])
def test_delta_weight_is_equation_4(update, make_case, family, small_is_input):
    case = make_case(family, 5, 13, 22, small_is_input=small_is_input)
    arguments = (case.A, case.B, case.lambda_, case.gamma, case.scaling)
    reference = update.reference_delta_weight(*arguments, small_is_input=small_is_input)
    for found in (reference, update.delta_weight(case.spec, case.form, case.lambda_, case.gamma)):
        torch.testing.assert_close(found, case.equation_4(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_double_backward_is_refused_but_by_the_reference(update, make_case, family):
    for strategy in STRATEGIES:
        case = make_case(family, 3, 8, 11)
        loss = case.by(update, strategy).square().sum()
        (gradient,) = torch.autograd.grad(loss, [case.lambda_], create_graph=True)
        if strategy == "reference":
            assert torch.autograd.grad(gradient.sum(), [case.gamma])[0].isfinite().all()
        else:
            # The second path to γ must not make torch leave out the first.
            for inputs in ([case.gamma], [case.x]):
                with pytest.raises(UpdateError, match=r"second derivative.*strategy='reference'"):
                    torch.autograd.grad(gradient.sum() + inputs[0].sum(), inputs)


@pytest.mark.parametrize("strategy", ["added", "factored", "folded"])
def test_forward_mode_and_vmap_are_refused(update, make_case, strategy):
    case = make_case("uniform", 3, 8, 11)

    def output(x):
        case.x = x
        return case.by(update, strategy)

    x = case.x.detach()
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.jvp(output, (x,), (torch.ones_like(x),))
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.vmap(output)(x)


def test_shape_annotations_are_checked_here(update, make_case):
    case = make_case("uniform", 3, 8, 11)
    case.gamma = case.gamma[:-1]
    for strategy in STRATEGIES:
        with pytest.raises(Exception, match=r"[Tt]ype"):
            case.by(update, strategy)
