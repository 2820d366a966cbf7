"""benchmarks/launches.py counts what can be counted by hand, and RandLoRA's layers launch no more than they did."""

from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def traffic(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import launches
    import traffic

    def passes(method, out, inner, rows, r=16, dtype=torch.bfloat16, *, autocast=False):
        layer = traffic.linear(out, inner, bias=False, dtype=dtype)
        return launches.count(traffic.adapted(method, layer, r), rows, inner, autocast=autocast)

    return passes


def total(passes, what):
    return sum(getattr(one, what) for one in passes)


def test_a_linear_layer_is_one_product_a_pass(traffic):
    forward, backward = traffic("base layer", 48, 32, 5)
    assert (forward.names, backward.names) == (["mm"], ["mm"])
    assert forward.flops == backward.flops == 2 * 5 * 48 * 32
    assert forward.bytes == 2 * (5 * 32 + 48 * 32 + 5 * 48)


def test_autocast_casts_a_float32_weight(traffic):
    forward, _ = traffic("base layer", 48, 32, 5, dtype=torch.float32, autocast=True)
    assert forward.names == ["_to_copy", "mm"]
    assert forward.bytes == (4 + 2) * 48 * 32 + 2 * (5 * 32 + 48 * 32 + 5 * 48)


@pytest.mark.parametrize("rows", [1, 256, 4096])
@pytest.mark.parametrize("shape", [(1024, 1024), (2816, 1024)])
def test_even_blocks_launch_four_fifths_of_loras_operations(traffic, shape, rows):
    ours, lora = traffic("structured", *shape, rows), traffic("PEFT LoRA", *shape, rows)
    assert total(ours, "launches") <= 0.83 * total(lora, "launches")  # 13 or 14 of 17


def test_no_more_bytes_than_half_of_loras_with_many_rows(traffic):
    ours, lora = traffic("structured", 1024, 1024, 4096), traffic("PEFT LoRA", 1024, 1024, 4096)
    assert total(ours, "bytes") <= 0.5 * total(lora, "bytes")


def test_a_float32_weight_is_folded_without_a_float32_copy(traffic):
    low = traffic("structured", 1024, 1024, 4096)
    wide = traffic("structured", 1024, 1024, 4096, dtype=torch.float32, autocast=True)
    assert total(wide, "launches") == total(low, "launches")
    assert total(wide, "bytes") == total(low, "bytes") + 2 * 2 * 1024 * 1024  # W₀ is twice as wide, and read twice
