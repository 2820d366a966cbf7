"""Decoding one token, unmerged and merged, and saving and loading an adapter.

    python benchmarks/inference.py                # results in benchmarks/results/inference.json

On the Llama-shaped model of workloads.py in bfloat16, one row of one token. No time is reported for a method whose
logits disagree with a float32 model of the same numbers.
"""

import copy
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from contenders import LORA, lora_rank, make
from measure import interleaved, relative_error, steady_heap
from randlora import fold_once
from randlora.training.run.record import hardware, versions
from workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results" / "inference.json"
METHODS = (LORA, "PEFT RandLora", "structured", "uniform")
REPETITIONS = 25
TOLERANCE = 0.05  # of the logits; sums of a handful of bfloat16 roundings in each of four blocks
TOKEN = torch.tensor([[5]])


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    """Of one token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=next(model.parameters()).dtype == torch.bfloat16):
        return model(input_ids=TOKEN).logits


def decoding(base: nn.Module, adapted: Callable[[str, nn.Module], nn.Module], stack: ExitStack) -> dict[str, Callable]:
    """Name -> decoding a token, after a check of each.

    Raises:
        SystemExit: A model's logits are wrong.
    """
    low = copy.deepcopy(base).bfloat16().eval()
    calls = {"base model": lambda: logits(low)}
    for name in METHODS:
        exact = logits(adapted(name, copy.deepcopy(base)).eval())
        model = adapted(name, copy.deepcopy(base).bfloat16()).eval()
        merged = copy.deepcopy(model).merge_and_unload()
        variants = {name: model, f"{name}, merged": merged}
        if name in ("structured", "uniform"):
            kept = adapted(name, copy.deepcopy(base).bfloat16()).eval()
            variants[f"{name}, fold_once"] = stack.enter_context(fold_once(kept))
        for variant, each in variants.items():
            wrong = relative_error([logits(each)], [exact])
            if wrong > TOLERANCE:
                raise SystemExit(f"{variant}: logits are off by {wrong:.3f}: no times reported")
            calls[variant] = lambda each=each: logits(each)
    return calls


def files(base: nn.Module, adapted: Callable[[str, nn.Module], nn.Module], folder: Path) -> tuple[dict, dict]:
    """Name -> saving, loading; and bytes of the adapter's weights."""
    calls, sizes = {}, {}
    for name in METHODS:
        model = adapted(name, copy.deepcopy(base).bfloat16())
        path = folder / name.replace(" ", "-")
        calls[f"{name}, save"] = lambda model=model, path=path: model.save_pretrained(path)
        fresh = copy.deepcopy(base).bfloat16()

        def load(path: Path = path, fresh: nn.Module = fresh) -> None:
            peft.PeftModel.from_pretrained(fresh, path).unload()

        calls[f"{name}, load"] = load
        model.save_pretrained(path)
        sizes[name] = (path / "adapter_model.safetensors").stat().st_size
    return calls, sizes


def main() -> None:
    """Measure, and write the results."""
    steady_heap()
    torch.manual_seed(0)
    workload = WORKLOADS["llama-256"]
    base = workload.model().bfloat16().float()
    rank = lora_rank(copy.deepcopy(base), workload.r, workload.targets)

    def adapted(name: str, model: nn.Module) -> nn.Module:
        return make(name, model, workload.r, rank, workload.targets)

    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        decode = interleaved(decoding(base, adapted, stack), REPETITIONS)
        calls, sizes = files(base, adapted, Path(folder))
        times = interleaved(calls, 5)
    content = {
        "hardware": hardware(torch.device("cpu"), "bf16") | {"threads": torch.get_num_threads()},
        "versions": versions(),
        "repetitions": REPETITIONS,
        "decode": decode,
        "files": times,
        "file_bytes": sizes,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, time in (decode | times).items():
        print(f"{name:<28}{time['median']:9.2f} ms")


if __name__ == "__main__":
    main()
