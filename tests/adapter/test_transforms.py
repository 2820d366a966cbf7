"""Gradients by torch.func, for which custom autograd functions have no rules, and programs of torch.export."""

import peft
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from every_method import METHODS, adapted, config
from kinds import KINDS
from networks import FAMILIES, Net, random_config, rows
from randlora.errors import UpdateError

TARGETS = ["a", "b", "c"]


@pytest.fixture(params=[*FAMILIES, *METHODS])
def model(request):
    is_family = request.param in FAMILIES
    chosen = random_config(bases=request.param, target_modules=TARGETS) if is_family else config(request.param)
    model = peft.get_peft_model(Net(), chosen).double().eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_gradients_by_sample(model):
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss(parameters, row):
        return functional_call(model, parameters, (row[None],)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(trained, rows().double())
    for number, row in enumerate(rows().double()):
        expected = torch.autograd.grad(loss(trained, row), list(trained.values()))
        for name, gradient in zip(trained, expected, strict=True):
            torch.testing.assert_close(found[name][number], gradient)


@pytest.mark.parametrize("method", ["randlora", "hybrid", "spectral", "nola", "hydralora"])
def test_a_batch_of_gradients(method):
    is_refused = method in ("randlora", "hybrid", "spectral")
    if is_refused:
        with pytest.raises(UpdateError, match=r"batched gradients.*strategy='reference'"):
            torch.autograd.functional.jacobian(adapted(method), rows(), vectorize=True)
    model = adapted(method, **({"strategy": "reference"} if is_refused else {}))
    expected = torch.autograd.functional.jacobian(model, rows())
    torch.testing.assert_close(torch.autograd.functional.jacobian(model, rows(), vectorize=True), expected)


def test_forward_mode(model):
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    x, direction = rows().double(), torch.ones(5, 13, dtype=torch.float64)

    def output(parameters, inputs):
        return functional_call(model, parameters, (inputs,))

    along = {name: torch.ones_like(p) for name, p in trained.items()}
    _, expected = jvp(output, (trained, x), (along, direction))
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p, along[name]) for name, p in trained.items()}
        found = forward_ad.unpack_dual(output(duals, forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close(found, expected)


def test_other_kinds_of_layers(kind):
    model, x = kind.adapted().double(), kind.batch(torch.float64)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss(parameters):
        return functional_call(model, parameters, (x,)).square().sum()

    found = grad(loss)(trained)
    expected = torch.autograd.grad(loss(trained), list(trained.values()))
    for name, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("model", ["structured", "uniform", "nola", "pranc", "randlora_a", "hybrid"], indirect=True)
def test_exported_for_any_number_of_rows(model):  # before any other pass: nothing is left to draw
    program = torch.export.export(
        model.base_model.model, (rows().double(),), dynamic_shapes={"x": {0: torch.export.Dim("rows", min=2, max=4096)}}
    )
    x = torch.randn(300, 13, dtype=torch.float64)
    torch.testing.assert_close(program.module()(x), model(x))
