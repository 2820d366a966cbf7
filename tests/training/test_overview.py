"""The table of methods: its formulas against what PEFT trains, its percentages against the paper's."""

import peft
import pytest
import torch
from torch import nn

from randlora.training import MethodConfig
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.method_table import METHODS, default_keys
from randlora.training.overview import ENTRIES, overview

# A layer large enough for rank 64; both ways around.
SHAPES = [(96, 80), (80, 96)]


def _adapted(entry, shape):
    torch.manual_seed(0)
    keys = {**entry.options}
    method = MethodConfig(name=entry.name, **keys)
    method.r, method.alpha = default_keys(method.name, method.r, method.alpha, method.bases)
    layer = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    return peft.get_peft_model(layer, adapter_config(method, target_modules=["0"]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name in METHODS], ids=lambda entry: entry.title)
def test_trained_numbers_rank_and_merging(entry, shape):
    model = _adapted(entry, shape)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == entry.trained(*shape)
    before = model.get_base_model()[0].get_base_layer().weight.detach().double().clone()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter))
    if not entry.mergeable:
        with pytest.raises(Exception, match="merge"):
            model.merge_and_unload()
        return
    delta = model.merge_and_unload()[0].weight.detach().double() - before
    assert torch.linalg.matrix_rank(delta, rtol=1e-4).item() <= entry.rank(*shape)


def test_the_percentages_are_the_papers():
    checked = [row for row in overview() if row.paper is not None]
    assert len(checked) == 8
    for row in checked:
        if row.method.startswith("vera"):  # one number per output and per rank are 0.012 %; the paper says 0.014
            assert round(row.percent, 3) == 0.012
        else:
            assert row.percent == pytest.approx(row.paper, rel=0.03), row.method
