"""Every method on every kind of layer: the table of docs/layers.md, and the literal ΔW of each pair."""

import warnings

import peft
import pytest
import torch

from every_method import fill
from kinds import KINDS, literal_output
from layers_table import LAYERS, METHOD_OF, ROWS, cell, documented, own_config
from literal import delta_weight


@pytest.mark.parametrize("kind_name", LAYERS)
@pytest.mark.parametrize("method", ROWS)
def test_every_form_of_an_adapter_agrees(method, kind_name, tmp_path):
    assert documented()[method, kind_name] == cell(method, kind_name, tmp_path)


def test_the_table_has_every_pair():
    assert set(documented()) == {(method, kind) for method in ROWS for kind in LAYERS}


# Kinds in float64 with their weights, and PyTorch's own encoder, whose fast path reads the weights.
FLOATING = {name: kind for name, kind in LAYERS.items() if name not in ("int8 Linear", "GPTQ Linear")}
FLOATING["TransformerEncoder"] = KINDS["encoder"]
MATRICES = [row for row in ROWS if row not in ("`hydralora`", "`randlora`, `peft`")]
"""Rows whose update is a ΔW for every kind of layer."""


@pytest.mark.parametrize("kind_name", FLOATING)
@pytest.mark.parametrize("method", MATRICES)
def test_values_and_gradients_are_those_of_the_literal_delta(method, kind_name):
    kind, name = FLOATING[kind_name], METHOD_OF[method]
    x = kind.batch(torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's on projections
        model = fill(peft.get_peft_model(kind.plain().double(), own_config(method, kind))).eval()
    inputs = [] if kind.ids else [x.requires_grad_()]
    outputs = model(x), literal_output(kind, model, x, delta=lambda layer, _: delta_weight(layer, name))
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(outputs[0].shape, dtype=torch.float64)
    trained = [p for p in model.parameters() if p.requires_grad]
    got, wanted = (torch.autograd.grad((y * weights).sum(), [*trained, *inputs]) for y in outputs)
    for ours, theirs in zip(got, wanted, strict=True):
        assert theirs.abs().max() > 0
        assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
