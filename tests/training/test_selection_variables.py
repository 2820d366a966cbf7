"""AutoLoRA: the gradient of the selection variables, and the ranks that they stand for."""

import math

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from randlora.methods.autolora import AutoLoraConfig, count_selected, find_selections, select_terms
from randlora.training.run.look_ahead import look_ahead_gradient


def adapted(*layers, r=3):
    linear = [str(number) for number, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    model = peft.get_peft_model(nn.Sequential(*layers), AutoLoraConfig(r=r, lora_alpha=2 * r, target_modules=linear))
    select_terms(model)
    return model


def test_a_layer_is_the_sum_of_its_selected_terms():
    torch.manual_seed(0)
    model = adapted(nn.Linear(5, 4), r=3).double()
    layer = model.base_model.model[0]
    A, B, a = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.lora_A["default"].selection
    x = torch.randn(2, 5, dtype=torch.float64)
    with torch.no_grad():
        B.normal_()
        a.normal_()
        alpha = a.exp() / a.exp().sum()
        delta = 2 * sum(alpha[j] * torch.outer(B[:, j], A[j]) for j in range(3))
        torch.testing.assert_close(model(x), x @ (layer.base_layer.weight + delta).T + layer.base_layer.bias)


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_the_look_ahead_is_the_derivative_through_a_step_of_the_weights(rate):
    """Against autograd's second derivative, on two layers with a tanh between."""
    torch.manual_seed(0)
    x, y, held_x, held_y = (torch.randn(6, size, dtype=torch.float64) for size in (5, 2, 5, 2))
    model = adapted(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    selections = list(find_selections(model).values())
    weights = [part for name, part in model.named_parameters() if part.requires_grad and "selection" not in name]
    with torch.no_grad():
        for part in (*weights, *selections):
            part.normal_()
    before = [part.detach().clone() for part in weights]

    def loss(inputs, wanted, moved=None):
        named = dict(model.named_parameters()) | (moved or {})
        return (torch.func.functional_call(model, named, (inputs,)) - wanted).square().mean()

    def gradients(inputs, wanted):
        found = torch.autograd.grad(loss(inputs, wanted), [*weights, *selections])
        return list(found[: len(weights)]), list(found[len(weights) :])

    names = {id(part): name for name, part in model.named_parameters()}
    step = torch.autograd.grad(loss(x, y), weights, create_graph=True)
    moved = {names[id(w)]: w - rate * s for w, s in zip(weights, step, strict=True)}
    exact = torch.autograd.grad(loss(held_x, held_y, moved), selections)
    step = [part.detach() for part in step]
    found = look_ahead_gradient(weights, step, rate, lambda: gradients(x, y), lambda: gradients(held_x, held_y))
    torch.testing.assert_close(found, list(exact), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(part, origin) for part, origin in zip(weights, before, strict=True))
    _, first_order = gradients(held_x, held_y)
    off = max(float((f - e).abs().max()) for f, e in zip(first_order, exact, strict=True))
    assert (off > 0.1) == (rate > 0)  # the step has something to say


def test_the_rank_is_the_number_of_terms_above_the_threshold():
    a = torch.tensor([0.6, 0.3, 0.1]).log()
    assert [count_selected(a, threshold) for threshold in (None, 0.2, 0.05, 0.5, 0.99)] == [1, 2, 3, 1, 1]
    assert [count_selected(torch.zeros(k), None) for k in range(2, 40)] == list(range(2, 40))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_rank_is_of_terms_that_are_there_and_falls_with_the_threshold(values, one, other):
    a = torch.tensor(values, dtype=torch.float64)
    ranks = [count_selected(a, threshold) for threshold in sorted((one, other))]
    assert len(values) >= ranks[0] >= ranks[1] >= 1
    alpha = [math.exp(value) / sum(map(math.exp, values)) for value in values]
    assert ranks[0] <= max(1, 1 / min(one, other))  # as they sum to 1
    if all(abs(share - one) > 1e-9 for share in alpha):
        assert count_selected(a, one) == max(1, sum(share > one for share in alpha))


def test_the_layer_of_higher_rank_gets_the_higher_rank():
    """Two layers side by side, whose weights are to change by matrices of rank 1 and 4."""
    torch.manual_seed(0)
    size, rank, changes = 16, 8, []
    for true_rank in (1, 4):
        left, right = (torch.linalg.qr(torch.randn(size, true_rank))[0] for _ in range(2))
        changes.append(2 * left @ right.T)
    model = adapted(nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False), r=rank)
    layers = [model.base_model.model[number] for number in range(2)]
    wanted = [layer.base_layer.weight + change for layer, change in zip(layers, changes, strict=True)]
    selections = list(find_selections(model).values())
    weights = [part for name, part in model.named_parameters() if part.requires_grad and "selection" not in name]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 1e-2}, {"params": selections, "lr": 1e-1}])

    def gradients(x):
        losses = [(layer(x) - x @ weight.T).square().mean() for layer, weight in zip(layers, wanted, strict=True)]
        found = torch.autograd.grad(sum(losses), [*weights, *selections])
        return list(found[: len(weights)]), list(found[len(weights) :])

    seen, held_out = torch.randn(2, 64, size)
    for _ in range(200):
        step, _ = gradients(seen)
        found = look_ahead_gradient(weights, step, 1e-2, lambda: gradients(seen), lambda: gradients(held_out))
        for part, gradient in zip([*weights, *selections], [*step, *found], strict=True):
            part.grad = gradient
        optimizer.step()
    low, high = (count_selected(selection, None) for selection in selections)
    assert low <= 2
    assert high == 4
