"""Single linear layers: each strategy, forward and backward, and how close `auto` comes to the best one.

    python benchmarks/linears.py                  # results in benchmarks/results/linears.json

Weights and activations in bfloat16, r = 16; LoRA trains as many numbers. No time is reported for a strategy whose
output or gradients disagree with equation 4 in float64.
"""

import argparse
import json
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from contenders import perturb
from measure import interleaved, relative_error
from randlora import RandLoraConfig
from randlora.training.record import hardware, versions

RESULTS = Path(__file__).parent / "results" / "linears.json"
LAYERS = ((768, 768), (3072, 768), (2816, 1024), (4096, 4096), (14336, 4096))  # (out, in)
TOKENS = (1, 16, 64, 256, 1024, 4096, 16384)
LARGEST = 2**35  # multiply-adds of the base product; larger cells would take minutes and say nothing new
FAMILIES = ("structured", "uniform")
STRATEGIES = ("factored", "folded", "auto")
R = 16
# Above this many weights equation 4 written out, which keeps n matrices of their size for its gradients, needs too
# much memory; the judge is then the factored form in float64, which the tests hold to equation 4.
LARGEST_REFERENCE = 2**22
# bfloat16's half unit in the last place is 2⁻⁸ (0.4 %); a handful of roundings follow each other.
TOLERANCE = 0.02


def adapted(layer: nn.Linear, config: peft.PeftConfig) -> nn.Module:
    """The layer with an adapter whose ΔW is not zero."""
    model = peft.get_peft_model(nn.Sequential(layer), config)
    perturb(model)
    return model


def forward_backward(model: nn.Module, x: Tensor, direction: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the trained numbers."""
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        output = model(x)
    return [output.detach(), *torch.autograd.grad(output, leaves, direction)]


def cell(out: int, inputs: int, tokens: int, repetitions: int) -> dict:
    """All methods on one layer and batch.

    Raises:
        SystemExit: A strategy is wrong: nothing may be reported.
    """
    torch.manual_seed(0)
    weight = (torch.randn(out, inputs) / inputs**0.5).bfloat16()
    x = torch.randn(tokens, inputs).bfloat16().requires_grad_()
    direction = torch.randn(tokens, out).bfloat16()

    def layer(dtype: torch.dtype) -> nn.Linear:
        made = nn.Linear(inputs, out, bias=False, dtype=dtype)
        made.weight.data.copy_(weight)
        return made

    small = min(out, inputs)
    trained = -(-small // R) * (R + small)
    lora = peft.LoraConfig(r=round(trained / (out + inputs)), target_modules=["0"])
    models = {"base": nn.Sequential(layer(torch.bfloat16)).requires_grad_(False)}
    models["PEFT LoRA"] = adapted(layer(torch.bfloat16), lora)
    errors = {}
    for family in FAMILIES:
        check = min(tokens, 256)
        judge = "reference" if out * inputs <= LARGEST_REFERENCE else "factored"
        exact_model = adapted(
            layer(torch.float64), RandLoraConfig(r=R, bases=family, strategy=judge, target_modules=["0"])
        )
        exact = forward_backward(exact_model, x[:check].detach().double().requires_grad_(), direction[:check].double())
        for strategy in STRATEGIES:
            name = f"{family}, {strategy}"
            config = RandLoraConfig(r=R, bases=family, strategy=strategy, target_modules=["0"])
            models[name] = adapted(layer(torch.bfloat16), config)
            found = forward_backward(models[name], x[:check].detach().requires_grad_(), direction[:check])
            errors[name] = max(relative_error([f], [e]) for f, e in zip(found, exact, strict=True))
            if errors[name] > TOLERANCE:
                raise SystemExit(f"{name}: off by {errors[name]:.3f} from equation 4: no times reported")
    calls = {name: lambda model=model: forward_backward(model, x, direction) for name, model in models.items()}
    times = interleaved(calls, repetitions)
    return {"milliseconds": times, "errors": errors}


def main() -> None:
    """Run every cell and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    cells = {}
    for out, inputs in LAYERS:
        for tokens in TOKENS:
            if out * inputs * tokens > LARGEST:
                continue
            result = cells[f"{out}x{inputs}, {tokens}"] = cell(out, inputs, tokens, arguments.repetitions)
            medians = {name: times["median"] for name, times in result["milliseconds"].items()}
            content = {
                "hardware": hardware(torch.device("cpu"), "bf16") | {"threads": torch.get_num_threads()},
                "versions": versions(),
                "repetitions": arguments.repetitions,
                "cells": cells,
            }
            RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            print(f"{out}x{inputs}, {tokens}: " + ", ".join(f"{n} {m:.2f}" for n, m in medians.items()), flush=True)


if __name__ == "__main__":
    main()
