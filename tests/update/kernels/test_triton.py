"""The Triton kernels: run in Triton's interpreter, run on a GPU where there is one, and compiled for CUDA without."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FORMS = Path(__file__).with_name("triton_forms.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
]


def _run_the_forms(**environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FORMS)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=FORMS.parents[3], env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_in_the_interpreter():
    _run_the_forms(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_gpu():
    _run_the_forms(RANDLORA_TRITON="1")


def _compiles(kernel, pointers, constants, capability):
    """Whether a kernel whose other arguments are int32 becomes machine code that fits the device."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = dict.fromkeys(kernel.arg_names, "i32") | pointers | dict.fromkeys(constants, "constexpr")
    # As at a launch with aligned memory and round sizes, the case in which loads are widened and pipelined.
    attrs = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if name not in constants and name != "scaling"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attrs)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert f".target sm_{capability}" in compiled.asm["ptx"]
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 99 * 1024  # the smallest since compute capability 8.0


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


everywhere = [
    pytest.mark.parametrize("capability", [80, 90], ids=["sm80", "sm90"]),
    pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"]),
]


def _everywhere(test):
    for mark in everywhere:
        test = mark(test)
    return test


@_everywhere
@pytest.mark.parametrize("contiguous", ["row", "column"])
def test_the_fold_compiles(contiguous, dtype, capability):
    from randlora.update.kernels.fold_triton import structured_fold_kernel

    rows, columns = (128, 32) if contiguous == "row" else (32, 128)
    pointers = dict.fromkeys(("weight", "update", "left", "out"), f"*{dtype}")
    constants = {f"weight_{contiguous}": 1, f"out_{contiguous}": 1, "update_column": 1, "left_column": 1}
    constants |= {"BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns}
    _compiles(structured_fold_kernel, pointers, constants, capability)


@_everywhere
def test_the_gradients_compile(dtype, capability):
    from randlora.update.kernels.gradients_triton import structured_gradients_kernel

    pointers = dict.fromkeys(("lambda_", "gamma", "lambda_gradient", "gamma_gradient"), "*fp32")
    pointers |= {"gradient": f"*{dtype}", "scaling": "fp32"}
    constants = {"gradient_slot": 1, "lambda_block": 1, "gamma_column": 1, "BLOCK_ROWS": 8, "BLOCK_SLOTS": 128}
    _compiles(structured_gradients_kernel, pointers, constants, capability)
