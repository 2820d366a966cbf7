import hashlib
from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randlora.bases.dense import DenseBases, draw, unit_scale
from randlora.update import DenseForm, SparseForm
from sizes import sizes

CPU = torch.device("cpu")
FAMILIES = [("uniform", 2.0), ("normal", 2.0), ("ternary", 2.0), ("ternary", 6.0), ("ternary", sqrt(768))]

# SHA-256 of the fingerprint's corners (seed 0, seed 12345) and of a 9 × 11 draw. A change of any of these is another
# meaning of every seed: it needs a new SCHEME_VERSION, not a new golden value.
GOLDEN = {
    ("uniform", 2.0): ("65b073999314daca", "19c6f03fb49df635", "921928f6f1f74883"),
    ("normal", 2.0): ("c26c009e81b44eae", "9748c04b23bee970", "7c2345ffb74327e0"),
    ("ternary", 2.0): ("500ec4392aa35d99", "53f7696fcc3c857c", "2be500ac2ccb6ace"),
    ("ternary", 6.0): ("604f651ead568420", "0a95b1144d0c6f4d", "e1f5aa26345ea57f"),
    ("ternary", sqrt(768)): ("4431f3767bfa4d68", "42fbbbbd90cbcbd4", "0d78c41eb6f10b7e"),
}


def _draw(family, sparsity, rows, columns, seed=0, stream=0):
    return draw(family, seed, stream, rows, columns, sparsity, CPU)


@pytest.mark.parametrize("case", FAMILIES)
def test_golden_draws(case):
    family, sparsity = case
    small = _draw(family, sparsity, range(9), 11, seed=3, stream=1)
    found = (
        DenseBases(family, 0, sparsity).fingerprint(),
        DenseBases(family, 12345, sparsity).fingerprint(),
        hashlib.sha256(small.numpy().astype("<f4").tobytes()).hexdigest()[:16],
    )
    assert found == GOLDEN[case]


@given(
    case=st.sampled_from(FAMILIES),
    seed=st.integers(0, 2**63 - 1),
    start=st.integers(0, 20),
    rows=st.integers(1, 9),
    columns=st.integers(1, 30),
    more=st.integers(0, 9),
)
def test_a_smaller_draw_is_the_corner_of_a_larger(case, seed, start, rows, columns, more):
    part = _draw(*case, range(start, start + rows), columns, seed=seed)
    whole = _draw(*case, range(start + rows + more), columns + more, seed=seed)
    assert torch.equal(part, whole[start : start + rows, :columns])


@pytest.mark.parametrize("case", FAMILIES)
def test_scale_gives_unit_variance_and_no_bias(case):
    entries = _draw(*case, range(1024), 1024).double() * unit_scale(*case)
    # Of 2²⁰ entries with unit variance the mean has a standard deviation of 1/1024; the mean square, that of x² / 1024,
    # where Var x² = E x⁴ - 1 is at most s/2 - 1 (ternary).
    spread = max(1.5, sqrt(case[1] / 2))
    assert abs(entries.mean().item()) < 5 / 1024
    assert abs(entries.square().mean().item() - 1) < 5 * spread / 1024


@pytest.mark.parametrize("case", FAMILIES)
def test_the_exact_second_moment_of_a_family_is_its_scale(case):
    family, sparsity = case
    if family == "uniform":
        values = torch.arange(-255, 256, 2).double() / 128
        second_moment = values.square().mean().item()
    elif family == "normal":
        normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1)
        probabilities = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
        second_moment = normal.icdf(probabilities).bfloat16().double().square().mean().item()
    else:
        second_moment = 2 / sparsity
    assert unit_scale(family, sparsity) ** 2 * second_moment == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("case", FAMILIES)
def test_entries_are_exact_in_every_dtype(case):
    entries = _draw(*case, range(256), 256)
    assert entries.dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(entries.to(dtype).float(), entries)


def test_every_normal_quantile_is_exact_in_float16():
    # The rarest and smallest, ±2e-5, are subnormal there.
    bases = DenseBases("normal", 0)
    entries = bases.form(sizes(16, 4096, 16), CPU, torch.float32)[0]
    assert torch.equal(entries.half().float(), entries)
    assert 0 < entries.abs().min() < 6e-5


def test_values_of_the_families():
    uniform = _draw("uniform", 2.0, range(128), 128)
    assert torch.equal(uniform.unique(), torch.arange(-255, 256, 2) / 128)
    normal = _draw("normal", 2.0, range(512), 512)
    assert 3.9 < normal.max() < 4.5
    assert _draw("ternary", 2.0, range(64), 64).unique().tolist() == [-1, 1]
    assert _draw("ternary", 6.0, range(64), 64).unique().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("sparsity", [2.0, 6.0, sqrt(768), 1e9])
def test_ternary_has_the_stated_density(sparsity):
    nonzero = _draw("ternary", sparsity, range(1024), 1024).count_nonzero().item()
    expected = 2**21 / sparsity
    assert abs(nonzero - expected) <= 5 * sqrt(expected * (1 - 2 / sparsity)) + 1e-3 * (sparsity == 2)


def test_a_and_b_are_different_draws():
    A, B = DenseBases("uniform", 0).form(sizes(8, 8, 8), CPU, torch.float32)
    assert not torch.equal(A, B)


def test_a_large_draw_in_slabs_equals_its_rows(monkeypatch):
    whole = DenseBases("normal", 5).form(sizes(4, 6, 50), CPU, torch.float32)[1]
    monkeypatch.setattr("randlora.bases.dense._ENTRIES_PER_DRAW", 20)
    assert torch.equal(DenseBases("normal", 5).form(sizes(4, 6, 50), CPU, torch.float32)[1], whole)


@pytest.mark.parametrize("sparsity", [2.0, 6.0, 15.9, 16.0, 100.0])
def test_sparse_bases_come_by_rows_too(sparsity):
    bases = DenseBases("ternary", 7, sparsity)
    for small, large, dtype in [(11, 20, torch.float32), (24, 40, torch.bfloat16), (11, 20, torch.float64)]:
        form = bases.form(sizes(4, small, large), CPU, dtype)
        A, B, *by_rows = form
        assert bool(by_rows) == (sparsity >= 16) == isinstance(form, SparseForm)
        assert A.shape == (4, small)
        for matrix, (values, columns, starts) in (
            zip((B, B.T), (by_rows[:3], by_rows[3:]), strict=False) if by_rows else ()
        ):
            dense = torch.zeros_like(matrix)
            dense[torch.arange(len(matrix)).repeat_interleave(starts.diff()), columns] = values
            assert values.dtype == dtype
            assert torch.equal(dense, matrix)
    assert type(bases.form(sizes(4, 11, 20), torch.device("meta"), torch.float32)) is DenseForm


def test_rows_first_asked_for_in_inference_mode_can_be_trained_with():
    bases = DenseBases("ternary", 7, 20.0)
    with torch.inference_mode():
        bases.form(sizes(4, 12, 20), CPU, torch.float32)
    assert not any(
        t.is_inference() for dtype in (torch.float32, torch.bfloat16) for t in bases.form(sizes(4, 12, 20), CPU, dtype)
    )
