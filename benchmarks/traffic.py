"""Launches and bytes of an adapted layer on a GPU, and the time that a roofline of an H100 gives them.

A model, not a measurement.

    python benchmarks/traffic.py                  # results in benchmarks/results/traffic.json; needs no GPU

Every method on the linear layers of Llama-3-8B and of CLIP ViT-H/14, forward and backward, counted operation by
operation (`launches.py`). LoRA has r = 16, RandLoRA the r that trains as many numbers in a whole block of the model.

An operation takes the longer of its products' time and its bytes' time. The device works through them while the
program launches the next ones, so that a pass takes the longer of all its operations and all its launches.
"""

import json
from pathlib import Path

import peft
import torch
from torch import nn

from contenders import LORA, make
from launches import Traffic, count
from randlora import RandLoraConfig
from randlora.methods.budget import fit_rank
from randlora.training.run.record import versions

RESULTS = Path(__file__).parent / "results" / "traffic.json"
ROWS = (1, 64, 1024, 4096, 16384)
LORA_RANK = 16
BASE, LORA_BF16 = "base layer", "PEFT LoRA, adapter in bf16"
EVEN = "structured, even blocks"
METHODS = (BASE, LORA, LORA_BF16, "structured", EVEN, "hybrid", "uniform")
# The nearest r that divides the smaller side of every layer, so that no block is a column short.
EVEN_RANK = {"Llama-3-8B": 64, "CLIP ViT-H/14": 32}
# NVIDIA's data sheet of the H100 SXM: dense bfloat16, and memory; a launch from PyTorch takes the program 3 to 5 µs.
FLOPS_PER_SECOND, BYTES_PER_SECOND, SECONDS_PER_LAUNCH = 989e12, 3.35e12, 4e-6
FLOAT32_FLOPS_PER_SECOND = 67e12  # products in float32 without TF32, PyTorch's default


# Layers of a block: name -> (out, in, how many); CLIP's have a bias.
BLOCKS = {
    "Llama-3-8B": {
        "q, o": (4096, 4096, 2),
        "k, v": (1024, 4096, 2),
        "gate, up": (14336, 4096, 2),
        "down": (4096, 14336, 1),
    },
    "CLIP ViT-H/14": {"q, k, v, out": (1280, 1280, 4), "fc1": (5120, 1280, 1), "fc2": (1280, 5120, 1)},
}
PRECISIONS = {"bf16": (torch.bfloat16, False), "autocast, fp32 weights": (torch.float32, True)}


def linear(out: int, inner: int, *, bias: bool, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A layer whose numbers are whatever was in its memory: nobody reads them."""
    return nn.utils.skip_init(nn.Linear, inner, out, bias=bias, dtype=dtype).requires_grad_(False)


def basis_rank(block: str) -> int:
    """The r of RandLoRA that trains as many numbers as LoRA on all layers of a block."""
    layers = {
        f"{place}_{index}": linear(out, inner, bias=False)
        for place, (out, inner, copies) in enumerate(BLOCKS[block].values())
        for index in range(copies)
    }
    config = RandLoraConfig(r=16, target_modules=list(layers))
    return fit_rank(config, nn.ModuleDict(layers), lora_rank=LORA_RANK).r


def adapted(method: str, layer: nn.Linear, r: int) -> nn.Module:
    """The layer under a method."""
    model = nn.Sequential(layer)
    if method == BASE:
        return model
    if method == LORA_BF16:
        config = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=["0"])
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    return make("structured" if method == EVEN else method, model, r, LORA_RANK, ["0"])


def seconds(traffic: Traffic) -> float:
    """What the roofline gives a pass."""
    device = 0.0
    for flops, moved, itemsize in traffic.costs:
        rate = FLOAT32_FLOPS_PER_SECOND if itemsize == 4 else FLOPS_PER_SECOND
        device += max(flops / rate, moved / BYTES_PER_SECOND)
    return max(device, traffic.launches * SECONDS_PER_LAUNCH)


def passes(traffic: tuple[Traffic, Traffic]) -> dict[str, dict]:
    """Both passes as they are stored."""
    return {
        name: {
            "launches": one.launches,
            "flops": one.flops,
            "bytes": one.bytes,
            "microseconds": round(1e6 * seconds(one), 2),
            "operations": one.names,
        }
        for name, one in zip(("forward", "backward"), traffic, strict=True)
    }


def cells(rows: tuple[int, ...] = ROWS) -> dict[str, dict]:
    """Every block, layer, precision, number of rows and method."""
    found: dict[str, dict] = {}
    for block, layers in BLOCKS.items():
        r = basis_rank(block)
        entry = found[block] = {"r": r, "layers": {}}
        for name, (out, inner, copies) in layers.items():
            sizes = entry["layers"][name] = {"out": out, "in": inner, "copies": copies, "cells": {}}
            for precision, (dtype, autocast) in PRECISIONS.items():
                for method in METHODS:
                    layer = linear(out, inner, bias=block.startswith("CLIP"), dtype=dtype)
                    model = adapted(method, layer, EVEN_RANK[block] if method == EVEN else r)
                    for count_rows in rows:
                        counted = count(model, count_rows, inner, autocast=autocast)
                        by_rows = sizes["cells"].setdefault(precision, {}).setdefault(str(count_rows), {})
                        by_rows[method] = passes(counted)
    return found


def main() -> None:
    """Count everything and replace the results."""
    results = {
        "roofline": {
            "flops_per_second": FLOPS_PER_SECOND,
            "float32_flops_per_second": FLOAT32_FLOPS_PER_SECOND,
            "bytes_per_second": BYTES_PER_SECOND,
            "seconds_per_launch": SECONDS_PER_LAUNCH,
        },
        "versions": versions(),
        "lora_rank": LORA_RANK,
        "blocks": cells(),
    }
    RESULTS.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
