"""Whole training steps: time, memory and bytes of RandLoRA beside PEFT's methods and full fine-tuning.

    python benchmarks/steps.py                    # every workload; results in benchmarks/results/steps.json
    python benchmarks/steps.py --workloads llama-1024

Where there is a GPU the large workloads run on it, and the results go to steps_gpu.json.

Forward, backward and an AdamW step of a model in bfloat16, under autocast, all methods in turn. No time is reported for
a method unless its loss and gradients in bfloat16 agree with a float32 model of the same numbers; for RandLoRA that
model uses equation 4 literally, or where that would need too much memory the factored form, which the tests hold to it.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from contenders import LORA, NAMES, lora_rank, make
from measure import interleaved, peak_bytes, relative_error, saved_bytes, steady_heap
from randlora.training.run.record import hardware, versions
from randlora.update.scratch import release_scratch
from workloads import WORKLOADS, Workload

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RESULTS = Path(__file__).parent / "results" / ("steps.json" if DEVICE.type == "cpu" else "steps_gpu.json")
# bfloat16 has 8 bits; errors of some dozen layers add up, to 0.06 in CLIP without an adapter. A wrong gradient is off
# by its own size.
TOLERANCE = 0.1
LARGEST_REFERENCE = 2_500_000_000  # numbers


def step_of(model: nn.Module, batch: dict) -> Callable[[], None]:
    """One whole training step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step() -> None:
        loss_of(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def loss_of(model: nn.Module, batch: dict) -> Tensor:
    """The model's own loss, under bfloat16 autocast unless it is a float32 model."""
    low = next(model.parameters()).dtype != torch.float32
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=low):
        return model(**batch).loss


def loss_and_gradients(model: nn.Module, batch: dict) -> list[Tensor]:
    """The loss, and the gradient of every trained parameter; none is left behind."""
    loss = loss_of(model, batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


def error(name: str, base: nn.Module, workload: Workload, rank: int) -> float:
    """Relative error of the gradients in bfloat16 against a float32 model of the same numbers.

    Raises:
        SystemExit: The loss or a gradient is wrong: nothing may be reported.
    """
    batch = on_device(workload.batch(workload.check_samples))
    low = make(name, copy.deepcopy(base).bfloat16(), workload.r, rank, workload.targets).to(DEVICE)
    exact = make(name, copy.deepcopy(base), workload.r, rank, workload.targets).to(DEVICE)
    ours = [layer for layer in exact.modules() if hasattr(layer, "randlora_bases")]
    # Equation 4 written out keeps a matrix of the weight's size for each basis.
    terms = sum(layer.num_bases["default"] * layer.in_features * layer.out_features for layer in ours)
    for layer in ours:
        layer.strategy["default"] = "reference" if terms <= LARGEST_REFERENCE else "factored"
    found, expected = loss_and_gradients(low, batch), loss_and_gradients(exact, batch)
    errors = relative_error(found[:1], expected[:1]), relative_error(found[1:], expected[1:])
    if max(errors) > TOLERANCE:
        raise SystemExit(f"{name}: loss or gradients disagree with the float32 model by {errors}: no times reported")
    return errors[1]


def on_device(batch: dict) -> dict:
    """The batch where the models are."""
    return {key: value.to(DEVICE) if isinstance(value, Tensor) else value for key, value in batch.items()}


def adapter_bytes(model: nn.Module) -> int:
    """Bytes of what PEFT would save."""
    if isinstance(model, peft.PeftModel):
        state = peft.get_peft_model_state_dict(model)
        return sum(t.numel() * t.element_size() for t in state.values())
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def bases_bytes(model: nn.Module) -> int:
    """Bytes of frozen shared bases in memory."""
    ours = {id(b): b for m in model.modules() for b in getattr(m, "randlora_bases", {}).values()}
    held = sum(b.stored_bytes() for b in ours.values() if hasattr(b, "stored_bytes"))
    theirs = {t.data_ptr(): t for n, t in model.named_buffers() if any(p in n for p in ("randlora_", "vera_"))}
    return held + sum(t.numel() * t.element_size() for t in theirs.values())


def run(workload: Workload, names: list[str], repetitions: int) -> dict[str, dict]:
    """Every method on one workload."""
    torch.manual_seed(0)
    base = workload.model()
    # Both models of a check hold the same numbers: those that bfloat16 can.
    base = base.bfloat16().float()
    rank = lora_rank(copy.deepcopy(base), workload.r, workload.targets)
    results = {name: {"gradient_error": error(name, base, workload, rank)} for name in names}
    batch = on_device(workload.batch(workload.samples))
    batch = {k: v.bfloat16() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    base = base.bfloat16()
    steps = {}
    for name in names:
        model = make(name, copy.deepcopy(base), workload.r, rank, workload.targets).to(DEVICE)
        step = steps[name] = step_of(model, batch)
        step()
        release_scratch()  # so that the peak counts it
        results[name] |= {
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "adapter_bytes": adapter_bytes(model),
            "bases_bytes": bases_bytes(model),
            "peak_bytes": peak_bytes(step),
            "saved_bytes": saved_bytes(lambda model=model: loss_of(model, batch), model),
        }
    for name, milliseconds in interleaved(steps, repetitions).items():
        results[name] |= {"milliseconds": milliseconds}
    for name in names:
        ratio = results[name]["milliseconds"]["median"] / results[LORA]["milliseconds"]["median"]
        results[name]["time_over_lora"] = ratio
        print(f"  {name:<22}{results[name]['milliseconds']['median']:9.1f} ms {ratio:6.2f} x LoRA", flush=True)
    return results


def main() -> None:
    """Run the workloads asked for and replace their entries in the results."""
    mine = [name for name, workload in WORKLOADS.items() if workload.gpu == (DEVICE.type == "cuda")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=mine)
    parser.add_argument(
        "--methods", nargs="+", choices=NAMES, default=list(NAMES), help="CLIP wants more than 23 GB for all of them"
    )
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    steady_heap()
    for name in arguments.workloads:
        print(name, flush=True)
        methods = run(WORKLOADS[name], arguments.methods, arguments.repetitions)
        # Read again each time: an interrupted run keeps what it has.
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        results[name] = {
            "hardware": hardware(DEVICE, "bf16") | {"threads": torch.get_num_threads()},
            "versions": versions(),
            "repetitions": arguments.repetitions,
            "methods": methods,
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
