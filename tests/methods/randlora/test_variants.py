"""Fewer bases, a fraction of the rank, an A for each basis: shapes, ranks, saving and loading."""

import peft
import pytest
import torch

from networks import Net, random_config, rows

VARIANTS = {
    "one base": {"num_bases": 1},
    "two bases": {"num_bases": 2, "bases": "uniform"},
    "half the rank": {"rank_fraction": 0.5},
    "half the rank, uniform": {"rank_fraction": 0.5, "bases": "uniform"},
    "eq. 3": {"separate_a": True, "bases": "normal"},
    "all": {"separate_a": True, "bases": "ternary", "num_bases": 2, "rank_fraction": 0.5},
    "mostly zeros": {"bases": "ternary", "sparsity": 20.0},
    "as many as full fine-tuning": {"r": 1},
}


def _net(**options):
    return peft.get_peft_model(Net(), random_config(**{"r": 4, "target_modules": ["a", "b", "c"]} | options))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_saved_merged_and_reference_agree(options, tmp_path):
    model = _net(**options)
    expected = model(rows()).detach()
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.equal(loaded(rows()), expected)
    for layer in (loaded.base_model.model.a, loaded.base_model.model.b):
        layer.strategy["default"] = "reference"
    torch.testing.assert_close(loaded(rows()), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.merge_and_unload()(rows()), expected, rtol=1e-4, atol=1e-5)


def test_the_rank_is_that_of_the_bases():
    for options, rank in (({}, 13), ({"num_bases": 2}, 8), ({"rank_fraction": 0.5}, 8), ({"num_bases": 9}, 13)):
        layer = _net(**options).base_model.model.a  # m = 13, r = 4, n = 4
        delta = layer.get_delta_weight("default").double()
        assert torch.linalg.matrix_rank(delta, rtol=1e-5).item() == rank


def test_half_the_rank_trains_as_many_gammas():
    whole, half = (_net(rank_fraction=fraction).base_model.model.a for fraction in (1.0, 0.5))
    assert whole.randlora_gamma["default"].weight.shape == half.randlora_gamma["default"].weight.shape
    assert half.randlora_lambda["default"].weight.shape == (4, 2)
