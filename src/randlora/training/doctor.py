"""What this installation and this machine can do, tried rather than guessed."""

import importlib.util
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import peft
import torch
from torch import nn

from randlora.methods.randlora import FAMILIES, RandLoraConfig

_REQUIRED = ("randlora", "torch", "transformers", "peft", "accelerate", "safetensors")
_OPTIONAL = ("datasets", "trl", "triton", "bitsandbytes", "matplotlib", "sklearn")


def examine() -> list[tuple[str, str, bool]]:
    """Every check: its name, what was found, and whether all is well (an optional thing that is absent is well)."""
    checks = [("python", platform.python_version(), True)]
    checks += [(name, _version(name), True) for name in _REQUIRED]
    checks += [(f"{name} (optional)", _version(name), True) for name in _OPTIONAL]
    checks.append(("CPU threads", str(torch.get_num_threads()), True))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            checks.append((f"cuda:{index}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free", True))
        own = torch.cuda.is_bf16_supported(including_emulation=False)
        checks.append(("bf16 on CUDA", "yes" if own else "no, or by emulation: use fp16 or fp32", True))
    else:
        checks.append(("CUDA", "none, runs use the CPU", True))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for family in FAMILIES:
        checks.append(_tried(f"bases={family}", lambda family=family: _agreement(family, device)))  # type: ignore[misc]
    return checks


def _version(package: str) -> str:
    names = {"sklearn": "scikit-learn"}
    if importlib.util.find_spec(package) is None:
        return "not installed"
    try:
        return version(names.get(package, package))
    except PackageNotFoundError:
        return "installed"


def _tried(name: str, check: Callable[[], str]) -> tuple[str, str, bool]:
    try:
        return name, check(), True
    except Exception as error:  # noqa: BLE001 - whatever goes wrong here is the finding
        return name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", False


def _agreement(family: str, device: torch.device) -> str:
    """Train one step with each strategy on a small layer and compare with the reference."""
    results = {}
    for strategy in ("reference", "folded", "factored"):
        torch.manual_seed(0)
        config = RandLoraConfig(r=8, bases=family, strategy=strategy, target_modules=["0"], init_weights=False)
        model = peft.get_peft_model(nn.Sequential(nn.Linear(48, 80)), config).to(device)
        output = model(torch.randn(16, 48).to(device))
        output.square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results[strategy] = torch.cat([output.detach().flatten(), *gradients])
    reference = results["reference"]
    error = max(float((results[s] - reference).abs().max() / reference.abs().max()) for s in ("folded", "factored"))
    if error > 1e-3:
        raise RuntimeError(f"folded or factored is off the reference by {error:.1e}")
    return f"works on {device}; folded and factored within {error:.0e} of the reference"
