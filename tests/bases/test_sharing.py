"""One pair of dense bases for the whole process: shared, grown, cast, and drawn in whatever mode the caller is in."""

import copy
import gc
import pickle

import pytest
import torch

from randlora.bases import DenseBases, PeftBases, StructuredBases, dense_bases
from sizes import sizes

CPU = torch.device("cpu")
DENSE = ["uniform", "normal", "ternary"]
# Each makes a fresh object, so that no other test has drawn for it.
MAKERS = {
    "uniform": lambda: DenseBases("uniform", 1),
    "normal": lambda: DenseBases("normal", 1),
    "ternary": lambda: DenseBases("ternary", 1, 6.0),
    "structured": lambda: StructuredBases(1),
    "peft": lambda: PeftBases(1, 4, 20, 12),
    "peft sparse": lambda: PeftBases(1, 4, 20, 12, "sparse"),
    "peft very sparse": lambda: PeftBases(1, 4, 20, 12, "very_sparse"),
}
everywhere = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def _tensors(bases, dtype=torch.float32):
    return bases.form(sizes(4, 12, 20), CPU, dtype)


def _pointers(bases, *shape, dtype=torch.float32):
    return [t.data_ptr() for t in bases.form(sizes(*shape), CPU, dtype)]


@pytest.mark.parametrize("family", DENSE)
def test_the_same_arguments_give_the_same_object(family):
    assert dense_bases(family, 3, 4) is dense_bases(family, 3, 4.0)
    assert dense_bases(family, 3) is not dense_bases(family, 4)
    # Sparsity means nothing to the families that have none.
    assert (dense_bases(family, 3, 4) is dense_bases(family, 3, 5)) == (family != "ternary")


@pytest.mark.parametrize("family", DENSE)
def test_layers_of_every_shape_are_views_of_one_pair(family):
    bases = DenseBases(family, 0)
    bases.reserve(sizes(8, 24, 40))
    whole = bases.form(sizes(8, 24, 40), CPU, torch.float32)
    for r, small, large in [(8, 24, 40), (8, 17, 40), (3, 24, 25), (1, 24, 24), (5, 7, 9)]:
        A, B = bases.form(sizes(r, small, large), CPU, torch.float32)
        assert (A.data_ptr(), B.data_ptr()) == (whole[0].data_ptr(), whole[1].data_ptr())
        assert A.shape == (r, small)
        assert B.shape == (large, -(-small // r) * r)
        assert torch.equal(A, whole[0][:r, :small])
    assert bases.stored_bytes() == 4 * (8 * 24 + 40 * 24)


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("larger", [(9, 24, 40), (8, 25, 40), (8, 24, 41), (16, 100, 120)])
def test_growing_keeps_the_numbers(family, larger):
    bases = DenseBases(family, 0)
    before = [t.clone() for t in bases.form(sizes(8, 24, 40), CPU, torch.float32)]
    A, B = bases.form(sizes(*larger), CPU, torch.float32)
    r, small, large = larger
    assert A.shape == (r, small)
    assert B.shape == (large, -(-small // r) * r)
    assert torch.equal(A[:8, :24], before[0])
    assert torch.equal(B[:40, :24], before[1][:, : B.shape[1]])
    assert _pointers(bases, 8, 24, 40) == [A.data_ptr(), B.data_ptr()]


def test_growth_by_a_layer_whose_hidden_size_is_already_there():
    # r = 16 rounds 17 columns up to 32: B is wide enough for a layer of 32, A is not.
    bases = DenseBases("uniform", 0)
    bases.form(sizes(16, 17, 40), CPU, torch.float32)
    A, _ = bases.form(sizes(16, 32, 40), CPU, torch.float32)
    assert A.shape == (16, 32)


def test_one_copy_in_the_dtype_last_asked_for():
    bases = DenseBases("normal", 0)
    bases.form(sizes(8, 24, 40), CPU, torch.float32)
    in_float = bases.stored_bytes()
    half = bases.form(sizes(8, 24, 40), CPU, torch.bfloat16)
    assert bases.stored_bytes() == in_float / 2
    again = bases.form(sizes(8, 24, 40), CPU, torch.float64)
    assert all(torch.equal(a.double(), b) for a, b in zip(half, again, strict=True))


def test_bases_are_freed_with_their_last_user():
    bases = dense_bases("uniform", 987654321)
    bases.form(sizes(4, 12, 20), CPU, torch.float32)
    del bases
    gc.collect()
    assert dense_bases("uniform", 987654321).stored_bytes() == 0


def test_copies_share_the_pair():
    bases = dense_bases("ternary", 3, 6.0)
    assert copy.deepcopy({"a": bases})["a"] is bases
    assert pickle.loads(pickle.dumps(bases)) is bases  # noqa: S301 - our own bytes


@everywhere
def test_casts_lose_nothing(make):
    bases = make()
    first = [t.clone() for t in _tensors(bases)]
    exact = not isinstance(bases, PeftBases)  # PEFT's entries fill the dtype they were drawn in
    narrow = _tensors(bases, torch.bfloat16)
    assert all(t.dtype in (torch.bfloat16, torch.int64) for t in narrow)
    if exact:
        assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(first, narrow, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, _tensors(bases), strict=True))


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_first_draw_in_inference_mode_can_be_trained_with(make, dtype):
    _clear_caches()
    with torch.inference_mode():
        bases = make()
        _tensors(bases, dtype)
    B = _tensors(bases)[-1]
    x = torch.ones(3, B.shape[0], requires_grad=True)
    (x @ B).sum().backward()
    assert x.grad is not None


@everywhere
@pytest.mark.parametrize("mode", ["context", "default"])
def test_a_default_device_of_the_callers_changes_nothing(make, mode):
    expected, fingerprint = _tensors(make()), make().fingerprint()
    _clear_caches()
    if mode == "context":
        with torch.device("meta"):
            bases = make()
            found, found_fingerprint = _tensors(bases), bases.fingerprint()
    else:
        torch.set_default_device("meta")
        try:
            bases = make()
            found, found_fingerprint = _tensors(bases), bases.fingerprint()
        finally:
            torch.set_default_device(None)
    assert all(t.device == CPU for t in found)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert found_fingerprint == fingerprint


@everywhere
def test_a_default_dtype_of_the_callers_changes_nothing(make):
    expected, fingerprint = _tensors(make()), make().fingerprint()
    _clear_caches()
    torch.set_default_dtype(torch.bfloat16)
    try:
        bases = make()
        found, found_fingerprint = _tensors(bases), bases.fingerprint()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(expected, found, strict=True))
    assert found_fingerprint == fingerprint


@everywhere
def test_a_draw_leaves_the_callers_random_state_alone(make):
    before = torch.get_rng_state()
    _tensors(make())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_the_same_bits_in_another_process(without_randlora):
    source = """
import hashlib, torch
from math import sqrt
from randlora.bases import DenseBases, PeftBases, StructuredBases
from randlora.update import Sizes
torch.manual_seed(99)
cpu = torch.device("cpu")
for bases in (DenseBases("uniform", 1), DenseBases("normal", 1), DenseBases("ternary", 1, 6.0), StructuredBases(1),
              PeftBases(1, 4, 20, 12), PeftBases(1, 4, 20, 12, "sparse")):
    digest = hashlib.sha256()
    for t in bases.form(Sizes(4, 3, 12, 20), cpu, torch.float32):
        digest.update(t.contiguous().numpy().tobytes())
    print(digest.hexdigest(), bases.fingerprint())
"""
    here = _run_here(source)
    assert without_randlora(source).split() == here.split()


def _run_here(source):
    lines = []
    exec(source, {"print": lambda *words: lines.append(" ".join(words))})  # noqa: S102 - the text is in this file
    return "\n".join(lines)


def _clear_caches():
    from randlora.bases import dense, hadamard

    dense._normal_quantiles.cache_clear()
    hadamard.hadamard_factors.cache_clear()
