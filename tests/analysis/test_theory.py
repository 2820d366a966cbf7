"""Fits against what is known: Eckart and Young's error, a ΔW of the method's own, a count of dimensions."""

import peft
import pytest
import torch

from every_method import fill
from randlora.adapter import AdapterLayer
from randlora.analysis.fitting import fit, fitted_error, lora_error, targets
from randlora.analysis.theorem import sparse_ranks, terms_of
from randlora.analysis.theory import METHODS, RANKS, analyze_theory, config_for
from randlora.errors import ConfigError
from randlora.methods.randlora import RandLoraConfig


def test_loras_error_is_that_of_the_nearest_matrix():
    target = targets(40, 33, 1)["random"]
    U, S, Vh = torch.linalg.svd(target)
    nearest = U[:, :5] * S[:5] @ Vh[:5]
    assert lora_error(target, 5) == pytest.approx(float((target - nearest).norm() / target.norm()))
    assert lora_error(targets(40, 33, 1)["rank 4"], 4) < 1e-12


@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_a_delta_of_the_methods_own_is_found(bases):
    config = RandLoraConfig(bases=bases, r=4, target_modules=["0"])
    net = torch.nn.Sequential(torch.nn.Linear(12, 20, bias=False).double())
    model = fill(peft.get_peft_model(net, config))
    layer = next(module for module in model.modules() if isinstance(module, AdapterLayer))
    target = layer.delta_weight("default").detach()
    error, numbers = fitted_error(target, config, 500)
    assert error < 0.05
    assert numbers == 3 * (4 + 12)


def test_random_targets_are_met_as_far_as_the_numbers_go():
    target = targets(48, 32, 0)["random"]
    error, numbers = fitted_error(target, RandLoraConfig(bases="structured", r=4, target_modules=["0"]), 300)
    assert error == pytest.approx((1 - numbers / target.numel()) ** 0.5, abs=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_given_as_many_numbers_as_the_lora(method):
    target = targets(48, 32, 0)["random"]
    configs = {rank: config_for(method, 48, 32, rank) for rank in RANKS}
    known = {rank: config for rank, config in configs.items() if config is not None}
    assert len(known) == (1 if method == "kradapter" else len(RANKS))
    rank = min(known)
    delta, numbers = fit(target, known[rank], 3)
    assert delta.shape == target.shape
    assert numbers == pytest.approx(80 * rank, rel=0.41)  # a KRAdapter has what it has


def test_veras_own_delta_is_found():
    config = peft.VeraConfig(r=6, target_modules=["0"])
    target = torch.randn(12, 1, dtype=torch.float64) @ torch.randn(1, 9, dtype=torch.float64)
    (near, _), (nearer, _) = (fitted_error(target, peft.VeraConfig(r=r, target_modules=["0"]), 200) for r in (2, 40))
    assert nearer < near < 1
    assert fitted_error(fit(target, config, 20)[0], config, 300)[0] < 0.01


def test_each_term_has_the_rank_of_its_basis_and_the_sum_the_theorems_error():
    for row in terms_of("random", targets(24, 16, 0)["random"], 60):
        assert row["least rank of a term"] == row["r"]
        assert row["ε"] - 1e-9 < row["error of the sum"] < row["n·ε"] + 1e-9
        assert row["fitted together"] <= row["error of the sum"] + 1e-9


def test_a_sparse_basis_has_the_rank_of_the_columns_that_it_meets():
    rows = sparse_ranks(48, 32)
    assert {row["full rank"] for row in rows} == {32}
    assert [row["rank of ΔW"] for row in rows if row["s"] == "2"] == [32, 32]
    for row in rows:
        assert row["rank of ΔW"] <= row["columns of A met"]
        if row["rank of B"] == 32:
            assert row["rank of ΔW"] == row["columns of A met"]
    assert min(row["rank of ΔW"] for row in rows) < 16


@pytest.mark.parametrize("sides", [(31, 64), (64, 0), (100_000, 100_000)])
def test_sides_that_cannot_be_compared_at_are_refused(sides):
    with pytest.raises(ConfigError, match="--rows, --columns: expected 32 to 4,096, got"):
        analyze_theory(*sides)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(ConfigError, match="--seed: expected 0 to"):
        analyze_theory(seed=seed)
